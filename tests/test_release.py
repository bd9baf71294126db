"""The wheel, by way of the source distribution, in a new environment that sees the dependencies of this one but gets aerialseg from the wheel alone;
there the notebook for Kaggle is executed, which runs the series out of the wheel."""
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("aerialseg", "nbs", "setup.py", "pyproject.toml", "settings.ini", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt")
ALONE = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "AERIALSEG_INPUT")} | {"PIP_NO_INDEX": "1", "MPLBACKEND": "agg"}


def done(*command, cwd):
    "Run a command to its end; what it printed."
    process = subprocess.run([str(c) for c in command], cwd=cwd, env=ALONE, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return process.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "The folder with both distributions."
    source = tmp_path_factory.mktemp("source")
    for part in PARTS:
        if (ROOT / part).is_dir(): shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
        else: shutil.copyfile(ROOT / part, source / part)
    done(sys.executable, "-m", "build", "--no-isolation", "--outdir", source / "dist", cwd=source)
    return source / "dist"


@pytest.fixture(scope="module")
def venv(built, tmp_path_factory):
    "A new environment with the wheel in it."
    folder = tmp_path_factory.mktemp("new") / "venv"
    done(sys.executable, "-m", "venv", "--without-pip", folder, cwd=built)
    packages = Path(done(folder / "bin/python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=built).strip())
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")       # a plain line: this environment's own .pth files are not followed
    done(sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet", "--no-deps", next(built.glob("*.whl")), cwd=built)
    return folder, packages


def test_the_wheel_is_what_is_imported(venv, tmp_path):
    import aerialseg
    folder, packages = venv
    where = done(folder / "bin/python", "-c", "import aerialseg.places as p; print(p.__file__, p.notebooks_folder())", cwd=tmp_path)
    assert all(Path(p).is_relative_to(packages / "aerialseg") for p in where.split())
    assert done(folder / "bin/aerialseg", "--version", cwd=tmp_path) == f"aerialseg {aerialseg.__version__}\n"


def test_the_wheel_carries_the_series_without_outputs(venv):
    inside = venv[1] / "aerialseg/_notebooks"
    for sub in ("", "studies"):
        assert sorted(p.name for p in (inside / sub).glob("*.ipynb")) == sorted(p.name for p in (ROOT / "nbs" / sub).glob("[0-9]*.ipynb"))
    for path in inside.rglob("*.ipynb"):
        nb, ours = (json.loads(p.read_text(encoding="utf-8"))["cells"] for p in (path, ROOT / "nbs" / path.relative_to(inside)))
        assert [c["source"] for c in nb] == [c["source"] for c in ours] and not any(c.get("outputs") for c in nb)
    assert (inside / "expected/demo.csv").exists() and (inside / "studies/results/memory.csv").exists()


def test_the_distributions_are_small(built):
    sizes = {p.suffix: p.stat().st_size for p in built.iterdir()}
    assert sizes[".whl"] < 1.5e6 and set(sizes) == {".whl", ".gz"}


LITTLE = ["arch=small_unet", "weights=none", "decoder_channels=", "height=64", "width=64", "scale=1.0", "epoch_images=16", "epochs=3", "batch=4", "lr=0.003", "valid_every=3", "tile=128",
          "overlap=16", "tta=none", "workers=0", "device=cpu"]


def test_the_kernel_runs_out_of_the_wheel(venv, built, tmp_path):
    "As on Kaggle: a folder for /kaggle/input, the wheel attached, the profile best made small, and a submission at the end."
    from aerialseg.folder import open_folder
    from aerialseg.real.kernel import write_kernel
    from aerialseg.scenes import make_scenes
    from aerialseg.submission import check_submission
    folder, packages = venv
    for path in (packages / "aerialseg/_notebooks").glob("[0-9]*.ipynb"):      # what a run can do without, for the sake of time
        if path.stem not in ("00_core", "04_dataset", "08_training", "09_evaluation", "10_submission"): path.unlink()
    wheel = next(built.glob("*.whl"))
    made = write_kernel(tmp_path / "kernel", user="somebody", wheel=wheel)
    data = make_scenes(tmp_path / "input/competitions/some-round", flights=5, frames=3, height=64, width=96, seed=1)
    (tmp_path / "input/datasets/somebody").mkdir(parents=True)
    shutil.copytree(made / "wheel", tmp_path / "input/datasets/somebody/aerialseg-wheel")
    (tmp_path / "working").mkdir()
    known = {"INPUT": str(tmp_path / "input"), "WORKING": str(tmp_path / "working"), "SETTINGS": LITTLE}
    (tmp_path / "p.yaml").write_text(json.dumps(known))
    done(folder / "bin/python", "-m", "papermill", made / "notebook/notebook.ipynb", tmp_path / "out.ipynb", "-f", tmp_path / "p.yaml", "-k", "python3", cwd=tmp_path)
    assert check_submission(tmp_path / "working/submission.csv", open_folder(data.root))["frames"] == len(data.test)
    left = {p.name for p in (tmp_path / "working/runs/best").iterdir()}
    assert {"recipe.json", "report.html", "model", "manifest.json", "notebooks"} <= left and not (tmp_path / "working/data").exists()
    text = str(nbformat.read(tmp_path / "out.ipynb", 4))
    assert "some-round, found there" in text and "is valid" in text and "%|" not in text      # it found the data, checked itself, and holds no progress bars
    manifest = json.loads((tmp_path / "working/runs/best/manifest.json").read_text())
    assert manifest["packages"]["aerialseg"] == wheel.name.split("-")[1] and manifest["code"]["commit"] is None
