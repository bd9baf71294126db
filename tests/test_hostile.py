"Damaged, strange and malicious inputs, about a thousand (tests/hostile.py), and names that try to be more than text."
import itertools
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import hostile
from aerialseg.core import LANDCOVER12, create_run, load_table, make_recipe, save_json, save_table
from aerialseg.gallery import pack
from aerialseg.metrics import counts_of


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    "Every case, run in child processes with limits on time and memory."
    if not Path("/proc/self/clear_refs").exists(): pytest.skip("memory is measured as Linux does")
    where = tmp_path_factory.mktemp("hostile")
    done = subprocess.run([sys.executable, hostile.__file__, str(where)], capture_output=True, text=True, timeout=900)
    rows = [json.loads(line) for f in where.glob("*.jsonl") for line in f.read_text().splitlines()]
    assert rows, done.stderr[-2000:]
    return {(r["family"], r["case"]): r for r in rows}


@pytest.mark.parametrize("family, case", [(f, c) for f, cases in hostile.FAMILIES.items() for c in cases])
def test_a_result_or_one_sentence(results, family, case):
    assert (family, case) in results, "it was never reached"
    assert results[family, case]["wrong"] == []


def test_they_are_many_and_small(results):
    assert len(results) >= 200
    assert max(r["mb"] for r in results.values()) < 2048


# ---- names in the report

class Structure(HTMLParser):
    "Every tag with its attributes' names, and what would run or fetch something."
    def __init__(self, html):
        super().__init__()
        self.tags, self.odd = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, *sorted(name for name, _ in attrs)))
        numbers, at = r"\[([\d.e-]+|null)?(, ([\d.e-]+|null))*\]", r"[\d.]+%"
        for name, value in attrs:
            fine = {"style": rf"left:{at}(;width:{at})?|bottom:{at}|--s:[\d.]+|background:#[0-9a-f]{{6}}", "href": r"#[a-z]+", "stroke": "#[0-9a-f]{6}",
                    "src": r"data:image/(png|webp);base64,[\w+/=]+", "d": r"[\d. MLHh-]*", "data-values": numbers, "data-xs": numbers, "data-places": numbers,
                    "data-curve": r"\d+", "value": r"[\d.]+", "max": r"\d+", "width": r"\d+", "height": r"\d+", "id": r"[a-z]+\d?(-title)?"}
            if name.startswith("on") or name in fine and not re.fullmatch(fine[name], value): self.odd.append((tag, name, value))


def run_named(folder, words):
    "A finished-looking run in which everything that can be named is named by `words`, in turn."
    word = itertools.cycle(words).__next__
    run = create_run(folder / word(), make_recipe("tiny", data=word(), arch=word(), encoder=word(), device=word()))
    names = [word() for _ in range(4)]
    score = {"value": 0.5, "interval": [0.4, 0.6], "definition": word()}
    share = {"iou": 0.1, "dice": 0.2, "pixel_share": 0.3, "image_share": 0.4}
    save_json({"scores": dict.fromkeys(("mean_dice", "miou", "pixel_acc"), score), "floors": {"all_empty": 0.1, "all_majority": 0.2}, "images": 3,
               "groups": 2, "classes": {n: share for n in names}, "absent": names[:2], "presence": {"applied": False},
               "confusion": [[1 + (a == 0)] * len(set(names)) for a in range(len(set(names)))]}, run / "metrics.json")
    save_table(pd.DataFrame({"epoch": [1, 2], "miou": [.1, .2]} | {f"iou_{n}": [.1, .2] for n in names}), run / "history.csv")
    ids, small = [word() for _ in range(2)], np.arange(12, dtype=np.uint8).reshape(3, 4) % 4
    seen = np.tile(np.arange(16).reshape(4, 4), (2, 1, 1))
    np.savez(run / "counts.npz", ImageID=np.array(ids), group=np.array([word(), word()]), classes=np.array(names), counts=counts_of(seen), confusion=seen)
    pictures = {f"{what}_{k}": np.frombuffer(pack(small if what != "image" else np.dstack([small] * 3)), np.uint8) for what in ("image", "mask", "pred") for k in range(2)}
    np.savez(run / "gallery.npz", ImageID=np.array(ids), dice=np.array([.1, .2]), **pictures)
    save_table(pd.DataFrame({"ImageID": ids, "split": ["train", "valid"], "group": [word(), word()], "background_ratio": [.1, .5]}), run / "split.csv")
    save_json({"taxonomy": {"name": word(), "names": names, "colours": [word() for _ in names]}}, run / "model/aerialseg.json")
    save_json({"split": {"kind": word(), word(): 1, "near_duplicates_across": 3}, "found": {word(): 1},
               "leaks": [[word(), word(), 3]]}, run / "audit.json")
    save_json({"data": {"files": 3, "folder": word()}, "machine": {"cpu": word(), word(): 1}, "packages": {word(): word()}, "code": {"commit": word()},
               "seconds": {word(): 1.0}}, run / "manifest.json")
    for what in range(2): Image.new("RGB", (2, 2)).save(run.figure(f"eval_{word()}"), "PNG")
    (run / "notebooks").mkdir()
    for k in range(2): (run / f"notebooks/0{k}_{word()}.ipynb").touch()
    return run


NASTY = ["<script>alert(1)<!-- ", "\"><img src=x onerror=alert(1)>", "' onmouseover='alert(1)", "javascript:alert(1)", "{{ 7*7 }}{% raw %}", "&lt;b&gt;&#60;i>",
         "#a?b=%2e&c", "red;background:url(x)", "]]><svg onload=alert(1)>", "a\u202eb"]


def test_the_report_shows_names_as_text(tmp_path):
    from aerialseg.report import make_report
    plain, nasty = (run_named(tmp_path / kind, words) for kind, words in (("plain", [f"word{k}" for k in range(10)]), ("nasty", NASTY)))
    want, page = Structure(make_report(plain).read_text()), make_report(nasty).read_text()
    got = Structure(page)
    assert not want.odd and not got.odd
    assert got.tags == want.tags                    # not one tag, not one attribute more
    assert "49" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S).split("<h2>Manifest")[1] and "{{ 7*7 }}" in page
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//|javascript:)", page)


def test_two_runs_on_one_page_show_names_as_text(tmp_path):
    from aerialseg.compare_report import make_compare_report
    found = []
    for kind, words in (("plain", [f"word{k}" for k in range(10)]), ("nasty", NASTY)):
        a, b = run_named(tmp_path / kind / "a", words), run_named(tmp_path / kind / "b", words)
        (tmp_path / kind / "pages").mkdir()
        with np.load(b / "counts.npz") as f: counts = dict(f)
        np.savez(b / "counts.npz", **counts | {"counts": counts["counts"] + [[[0, 5, 0]], [[0, 0, 7]]]})
        found.append(Structure(make_compare_report(a, b, tmp_path / kind / "pages/compare.html").read_text()))
    assert not found[0].odd and not found[1].odd and found[0].tags == found[1].tags and ("article", "class") in found[0].tags


def test_a_linked_figure_is_not_shown(tmp_path):
    import base64
    from aerialseg.report import make_report
    run = run_named(tmp_path, ["word"])
    (tmp_path / "secret").write_text("the password")
    (run / "figures/eval_z.png").symlink_to(tmp_path / "secret")
    assert base64.b64encode(b"the password").decode() not in make_report(run).read_text()


# ---- names in tables

FORMULAS = ["=1+1", "@SUM(A1)", "+1", "-1", "NA", "007", "1.0", "a,b", 'say "x"', "true", "nan", " a ", "é路"]


def test_tables_hold_names_exactly(tmp_path):
    import pandas as pd
    table = pd.DataFrame({"ImageID": FORMULAS, "group": FORMULAS[::-1], "background_ratio": np.linspace(0, 1, len(FORMULAS))})
    save_table(table, tmp_path / "split.csv")
    back = load_table(tmp_path / "split.csv")
    assert list(back.ImageID) == FORMULAS and list(back.group) == FORMULAS[::-1] and np.array_equal(back.background_ratio, table.background_ratio)


def test_a_submission_holds_ids_exactly_and_the_audit_warns(tmp_path):
    from aerialseg.core import save_classes
    from aerialseg.dataset import audit, fatal
    from aerialseg.folder import open_folder
    from aerialseg.submission import check_submission, write_rows
    import pandas as pd
    (tmp_path / "imgs/imgs").mkdir(parents=True)
    (tmp_path / "masks/masks").mkdir(parents=True)
    for i in FORMULAS: Image.new("RGB", (4, 2)).save(tmp_path / f"imgs/imgs/{i}.jpg")
    Image.new("L", (4, 2)).save(tmp_path / "masks/masks/=1+1.png")
    for part, ids in (("train", FORMULAS[:1]), ("test", FORMULAS[1:])): save_table(pd.DataFrame({"ImageID": ids}), tmp_path / f"{part}.csv")
    save_classes(LANDCOVER12, tmp_path / "classes.csv")
    folder = open_folder(tmp_path)
    found = audit(folder)
    assert fatal(found).empty and list(found.ImageID[found.kind == "formula_id"]) == FORMULAS[:4]
    path = write_rows(tmp_path / "s.csv", folder, lambda image: np.zeros(image.shape[:2], np.uint8))
    assert check_submission(path, folder)["frames"] == 12
    assert [i.rsplit("_", 1)[0] for i in load_table(path).ImageID[::12]] == FORMULAS[1:]


# ---- models from elsewhere

def test_a_model_without_weights_of_ours_loads_nothing(tmp_path):
    "Neither a pickle beside it nor the words of config.json are looked at; no network is asked."
    import torch
    from aerialseg.core import AerialsegError
    from aerialseg.model import SmallUNet, load_model, save_model
    folder = tmp_path / "run/model"
    save_model(SmallUNet(12), folder, LANDCOVER12, make_recipe("tiny", arch="small_unet"))
    (folder / "config.json").write_text('{"_target_": "os.system", "_model_class": "hf-hub:somebody/model", "encoder_weights": "imagenet"}')
    assert isinstance(load_model(folder)[0], SmallUNet)

    class Evil:
        def __reduce__(self): return (open, (str(tmp_path / "ran"), "w"))
    torch.save({"state_dict": Evil()}, folder / "pytorch_model.bin")
    torch.save({"state_dict": Evil()}, folder / "model.safetensors")
    with pytest.raises(AerialsegError, match="model.safetensors"): load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(AerialsegError, match="model.safetensors is missing"): load_model(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_an_audit_does_not_wait_for_a_pipe(broken):
    from aerialseg.dataset import audit
    path = broken.images[broken.train[0]]
    path.unlink()
    os.mkfifo(path)
    found = audit(broken)
    assert list(found.kind) == ["unreadable_image"] and "pipe" in found.detail[0]
