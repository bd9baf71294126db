"JupyterLab as `make lab` starts it: a notebook runs in it, and the browser widget answers clicks."
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from browser import Watched, needs_browser, open_browser
from conftest import ROOT

pytestmark = needs_browser
WAIT = 120_000       # ms, for a machine that has other things to do


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def open_lab(notebooks: Path, state: Path, *options):
    "The project's JupyterLab on another folder, with nothing of this user's settings; address of a path in it. Ends with all its kernels."
    token, port = secrets.token_hex(16), free_port()
    own = {f"JUPYTER_{n}_DIR": str(state / n.lower()) for n in ("CONFIG", "DATA", "RUNTIME")} | {"JUPYTERLAB_SETTINGS_DIR": str(state / "settings"),
           "JUPYTERLAB_WORKSPACES_DIR": str(state / "workspaces"), "MPLBACKEND": "", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **own}
    del environment["MPLBACKEND"]            # pictures go into the notebooks
    command = [str(Path(sys.executable).parent / "jupyter"), "lab", f"--config={ROOT / 'lab/config.py'}", "--no-browser", "--allow-root",
               "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={notebooks}", *options]
    with open(state / "log", "w") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    at = lambda path: f"http://127.0.0.1:{port}/{path}?token={token}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(at("api/status"), timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (state / "log").read_text()[-3000:]
                time.sleep(.1)
        yield at
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)      # it ends its kernels, which have process groups of their own
            try: server.wait(10)
            except subprocess.TimeoutExpired: pass
        try: os.killpg(server.pid, signal.SIGKILL)
        except ProcessLookupError: pass
        server.wait(10)


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory, scenes):
    "An evaluated run, its network untrained: here only the buttons count."
    import torch
    from aerialseg.core import create_run, make_recipe
    from aerialseg.dataset import make_split
    from aerialseg.evaluation import evaluate
    from aerialseg.model import SmallUNet, save_model
    recipe = make_recipe("tiny", data=str(scenes.root), taxonomy="auto", arch="small_unet", tta="none", engine="torch", device="cpu", valid_share=.5)
    run = create_run(tmp_path_factory.mktemp("run") / "runs/small", recipe)
    make_split(run)
    torch.manual_seed(0)        # always the same mistakes
    save_model(SmallUNet(12), run / "model", scenes.taxonomy, recipe)
    evaluate(run)
    return run


@pytest.fixture(scope="module")
def lab(tmp_path_factory, looked_at):
    "The address of JupyterLab on a copy of some notebooks, and their folder."
    import nbformat
    work = tmp_path_factory.mktemp("lab")
    (work / "nbs").mkdir(), (work / "state").mkdir()
    for name in ("index", "00_core"): shutil.copy(ROOT / f"nbs/{name}.ipynb", work / "nbs")
    shutil.copytree(ROOT / "nbs/images", work / "nbs/images")
    cell = nbformat.v4.new_code_cell(f"from aerialseg.browser import browse\nbrowse({str(looked_at.folder)!r})")
    kernel = {"display_name": "python3", "language": "python", "name": "python3"}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), work / "nbs/look.ipynb")
    with open_lab(work / "nbs", work / "state") as at, open_browser() as browser: yield at, work / "nbs", browser


def run_all(page):
    "By the menu, as a reader does."
    page.locator(".jp-NotebookPanel:visible .jp-Toolbar-kernelName", has_text="Python 3").wait_for(timeout=WAIT)     # without a kernel it would ask for one
    page.wait_for_selector(".jp-NotebookPanel:visible .jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=WAIT)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def executed(page, path):
    "The notebook as it is saved once every code cell has run or one has failed."
    for _ in range(WAIT // 500):
        page.wait_for_timeout(500)
        page.keyboard.press("Control+s")
        cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        errors = [o for c in cells for o in c["outputs"] if o["output_type"] == "error"]
        if errors or all(c["execution_count"] for c in cells): return errors, cells
    raise AssertionError(f"{path.name} did not run: {[c['execution_count'] for c in cells]}")


def test_front_page_leads_to_a_notebook_that_runs(lab):
    at, folder, browser = lab
    watched = Watched(browser)
    page = watched.open(at(""))
    page.wait_for_url(re.compile(r"/lab/tree/index\.ipynb"), timeout=WAIT)
    page.get_by_role("link", name="00_core", exact=True).first.click(timeout=WAIT)
    page.wait_for_selector(".jp-NotebookPanel:visible h1:has-text('Core')", timeout=WAIT)
    run_all(page)
    errors, cells = executed(page, folder / "00_core.ipynb")
    assert errors == [] and any(c["outputs"] for c in cells)
    assert watched.errors == [] and watched.external == [] and not page.get_by_text("Jupyter news").count()
    page.context.close()


def test_browser_widget_answers_clicks(lab, looked_at):
    from aerialseg.frames import load_judged, pick_frames
    at, _, browser = lab
    judged = load_judged(looked_at)
    names = (looked_at.data / "classes.csv").read_text().splitlines()
    few = {(t, p): len(pick_frames(judged, cell=(t, p))) for t, p in zip(*judged.matrices.sum(0).nonzero()) if t != p}
    cell = min(few, key=few.get)                                    # the mistake made in the fewest frames
    truth, pred = (names[1 + i].split(",")[1] for i in cell)
    assert 0 < few[cell] < len(judged.ids)

    watched = Watched(browser)
    page = watched.open(at("lab/workspaces/look/tree/look.ipynb"))    # a workspace of its own: what another test opened is not opened again
    page.wait_for_selector(".jp-NotebookPanel:visible .jp-Cell:has-text('browse')", timeout=WAIT)
    run_all(page)
    options = page.locator(".jp-OutputArea-output select[size] option")
    options.first.wait_for(state="attached", timeout=WAIT)
    assert options.count() == len(judged.ids) and "Dice" in options.first.inner_text()
    pictures = page.locator(".jp-OutputArea-output img.widget-image")
    assert pictures.count() == 4 and pictures.first.evaluate("e => e.complete && e.naturalWidth") == 80
    wait_for_change = lambda what, before: page.wait_for_function(f"before => {what} !== before", arg=before, timeout=WAIT)
    size = "document.querySelectorAll('.jp-OutputArea-output select[size] option').length"
    source = "document.querySelector('.jp-OutputArea-output img.widget-image').src"

    page.locator(f".jp-OutputArea-output button[title^='{truth} taken for {pred}']").click()
    wait_for_change(size, len(judged.ids))
    assert options.count() == few[cell] and options.first.inner_text().split()[-1] == pick_frames(judged, cell=cell).ImageID.iloc[0]
    page.get_by_text(f"{truth.replace('_', ' ')} taken for {pred.replace('_', ' ')}").wait_for(timeout=WAIT)      # over the pictures

    before = page.evaluate(source)                                  # this frame holds the class: without it the truth looks different
    page.locator(".jp-OutputArea-output").get_by_label(truth.replace("_", " "), exact=True).uncheck()
    wait_for_change(source, before)
    page.get_by_role("button", name="all frames").click()
    wait_for_change(size, few[cell])
    assert options.count() == len(judged.ids)
    assert watched.errors == [] and watched.external == []
