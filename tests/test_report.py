"The reports of a run and of two, made by the real functions and opened in a real browser from the disk, as people do."
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import PHONE, WIDE, Watched, needs_browser, open_browser

from aerialseg.compare_report import make_compare_report
from aerialseg.core import Run, create_run, make_recipe, save_json, save_table
from aerialseg.dataset import make_split
from aerialseg.evaluation import evaluate
from aerialseg.gallery import KEPT, load_gallery, pack
from aerialseg.manifest import write_manifest
from aerialseg.page import MOST
from aerialseg.report import make_report
from aerialseg.scenes import scenes_for
from aerialseg.training import train


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "Two tiny runs, the second of the same model with other test-time augmentation, and the three pages people can have of them."
    import shutil
    where = tmp_path_factory.mktemp("report")
    recipe = make_recipe("tiny", device="cpu", epochs=2, valid_every=1, epoch_images=16, height=64, width=64, tta="none", workers=0, flights=5, frames=3)
    a = create_run(where / "runs/a", recipe)
    scenes_for(a)
    make_split(a)
    train(a)
    evaluate(a)
    (a / "submission.csv").write_text("ImageID,EncodedPixels\n")
    b = Run(where / "runs/b", replace(recipe, tta="flip"))
    for name in ("split.csv", "audit.json", "history.csv", "model"):
        (shutil.copytree if (a / name).is_dir() else shutil.copy)(a / name, create_run(b.folder, b.recipe) / name)
    evaluate(b)
    for run in (a, b): write_manifest(run)
    make_report(a)
    old = Run(where / "runs/old", recipe)                # as it was before pictures were kept
    shutil.copytree(a.folder, old.folder, ignore=shutil.ignore_patterns("gallery.npz", "checkpoint"))
    make_report(old)
    make_compare_report(a, b, where / "compare.html")
    return where, a, b


PAGES = ["runs/a/report.html", "runs/old/report.html", "compare.html"]


@pytest.fixture(scope="module")
def browser():
    with open_browser() as b: yield b


# ---- what a page must be, in the browser

@needs_browser
@pytest.mark.parametrize("page", PAGES)
def test_it_opens_without_a_complaint_and_asks_nothing_of_a_network(made, browser, page):
    for viewport in (WIDE, PHONE)[:1 if "old" in page else 2]:
        w = Watched(browser, viewport)
        opened = w.open(made[0] / page)
        for summary in opened.query_selector_all("summary"): summary.click()
        opened.evaluate("scrollTo(0, document.body.scrollHeight)")
        assert w.errors == [] and w.external == []
        assert w.overflow() == 0, f"{page} is wider than {viewport['width']} pixels"
        broken = opened.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt)")
        assert broken == []


@needs_browser
@pytest.mark.parametrize("page", PAGES)
def test_no_link_leads_nowhere(made, browser, page):
    opened = Watched(browser).open(made[0] / page)
    links = opened.evaluate("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert links and all(re.fullmatch("#[a-z]+", link) for link in links)
    assert [link for link in links if not opened.query_selector(link)] == []
    assert opened.evaluate("document.querySelectorAll('[id]').length == new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size")


@needs_browser
@pytest.mark.parametrize("page, scheme, viewport, rules", [
    (PAGES[0], "light", WIDE, None), (PAGES[0], "dark", WIDE, ["color-contrast"]), (PAGES[0], "dark", PHONE, ["color-contrast", "scrollable-region-focusable"]),
    (PAGES[2], "light", WIDE, None), (PAGES[2], "dark", WIDE, ["color-contrast"])])
def test_everybody_can_read_it(made, browser, page, scheme, viewport, rules):
    w = Watched(browser, viewport, color_scheme=scheme)
    opened = w.open(made[0] / page)
    for summary in opened.query_selector_all("summary"): summary.click()
    assert w.violations(**{"runOnly": rules} if rules else {}) == []
    dark = opened.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(dark) < 3 * 64) == (scheme == "dark")


# ---- what moves

def focus(page, what):
    "Reach something with the Tab key alone."
    for _ in range(400):
        page.keyboard.press("Tab")
        if page.evaluate(f"document.activeElement.matches({json.dumps(what)})"): return
    raise AssertionError(f"the Tab key does not reach {what}")


@needs_browser
def test_a_slider_moves_between_image_mask_and_prediction_by_keyboard(made, browser):
    page = Watched(browser).open(made[0] / PAGES[0])
    focus(page, ".frame input[type=range]")
    stage = page.query_selector(".frame .stage")
    shots, said = [], []
    for key in ("Home", "End", "ArrowLeft"):
        page.keyboard.press(key)
        shots.append(stage.screenshot())
        said.append(page.evaluate("document.activeElement.getAttribute('aria-valuetext')"))
    assert said == ["image", "prediction", "95 % prediction, the rest mask"] and len(set(shots)) == 3
    page.keyboard.press("Home")
    for _ in range(20): page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-valuetext')") == "mask" and stage.screenshot() not in shots


@needs_browser
def test_what_the_stage_shows_is_what_the_run_kept(made, browser):
    "The pixels of the browser at the slider's ends are the mask's and the prediction's colours."
    import io
    from PIL import Image
    kept = load_gallery(made[1])[0]
    colours = json.loads((made[1] / "model/aerialseg.json").read_text())["taxonomy"]["colours"]
    palette = np.array([[int(c[k:k + 2], 16) for k in (1, 3, 5)] for c in colours])
    page = Watched(browser).open(made[0] / PAGES[0])
    page.uncheck(".over-image")
    page.add_style_tag(content=".stage .tag, .stage .wipe {display: none} .stage img {image-rendering: pixelated}")
    slider, stage = page.query_selector(".frame input[type=range]"), page.query_selector(".frame .stage")
    for value, ids in ((1, kept.mask), (2, kept.pred)):
        slider.fill(str(value))
        shot = np.asarray(Image.open(io.BytesIO(stage.screenshot())).convert("RGB"))
        h, w = ids.shape
        y, x = [((np.arange(n) + .5) * shot.shape[k] / n).astype(int) for k, n in ((0, h), (1, w))]
        assert (np.abs(shot[np.ix_(y, x)].astype(int) - palette[ids]).max(-1) < 3).mean() > .97


@needs_browser
def test_the_line_follows_the_pointer_and_errors_can_be_shown_alone(made, browser):
    page = Watched(browser).open(made[0] / PAGES[0])
    stage = page.query_selector(".frame .stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 30)
    page.mouse.up()
    assert 1.2 < float(page.query_selector(".frame input[type=range]").input_value()) < 1.3
    before = stage.screenshot()
    focus(page, ".over-image")
    page.keyboard.press("Space")
    assert stage.screenshot() != before                  # the image does not shine through any more
    before = stage.screenshot()
    focus(page, ".show-errors")
    page.keyboard.press("Space")
    assert stage.screenshot() != before and page.evaluate("getComputedStyle(document.querySelector('.err')).opacity") == "1"
    focus(page, ".stops button")
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('.frame input').getAttribute('aria-valuetext')") == "image"


@needs_browser
def test_curves_tell_their_values_and_classes_can_be_switched_off(made, browser):
    page = Watched(browser).open(made[0] / PAGES[0])
    import pandas as pd
    history = pd.read_csv(made[1] / "history.csv")
    focus(page, ".chart input[type=range]")
    page.keyboard.press("Home")
    told = page.evaluate("document.querySelector('.chart [data-values]').textContent")
    assert told == f"{history.train_loss[0]:.3f}" and page.evaluate("document.activeElement.getAttribute('aria-valuetext')") == "epoch 1"
    focus(page, ".chart input[type=checkbox]")
    visible = "[...document.querySelectorAll('.tall [data-curve]')].filter(g => getComputedStyle(g).display != 'none').length"
    n = page.evaluate(visible)
    page.keyboard.press("Space")
    assert page.evaluate(visible) == n - 1 == 11
    page.click("button[data-all='0']")
    assert page.evaluate(visible) == 0
    page.click("button[data-all='1']")
    assert page.evaluate(visible) == n


@needs_browser
def test_the_confusion_matrix_tells_its_numbers_by_arrow_keys(made, browser):
    page = Watched(browser).open(made[0] / PAGES[0])
    metrics = json.loads((made[1] / "metrics.json").read_text())
    m, names = np.array(metrics["confusion"]), list(metrics["classes"])
    focus(page, ".matrix td")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft"): page.keyboard.press(key)
    r = c = 1
    told = page.inner_text("#tell")
    assert told.startswith(f"truth {names[r]}, predicted {names[c]}: {m[r, c] / max(m[r].sum(), 1):.1%}") and f"{m[r, c]:,} pixels" in told
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")                    # stays inside
    assert f"predicted {names[-1]}" in page.inner_text("#tell")
    page.hover(".matrix td >> nth=0")
    assert page.inner_text("#tell").startswith(f"truth {names[0]}, predicted {names[0]}")
    shown = page.evaluate("[...document.querySelectorAll('.matrix tbody tr')].map(tr => [...tr.querySelectorAll('td')].reduce((s, c) => s + +c.textContent, 0))")
    assert all(abs(total - 100) <= 6 for total, row in zip(shown, m) if row.sum())      # rounded shares


@needs_browser
def test_without_javascript_all_pictures_are_there(made, browser):
    w = Watched(browser, java_script_enabled=False)
    w.open(made[0] / PAGES[0])
    frame = w.page.query_selector(".frame")
    boxes = [f.bounding_box() for f in frame.query_selector_all("figure")]
    assert len(boxes) == 3 and len({b["x"] for b in boxes}) == 3 and min(b["width"] for b in boxes) > 100      # side by side
    assert not frame.query_selector("input").is_visible() and w.errors == []
    assert w.page.query_selector(".matrix td").get_attribute("title").startswith("truth ")


@needs_browser
def test_two_predictions_lie_under_one_slider(made, browser):
    page = Watched(browser).open(made[0] / "compare.html")
    focus(page, ".frame input[type=range]")
    said = lambda: page.evaluate("document.activeElement.getAttribute('aria-valuetext')")
    assert said() == "50 % B, the rest A"
    stage, shots = page.query_selector(".frame .stage"), []
    for _ in range(2):
        for _ in range(10): page.keyboard.press("ArrowRight" if not shots else "ArrowLeft")
        if shots: [page.keyboard.press("ArrowLeft") for _ in range(10)]
        shots.append((said(), stage.screenshot()))
    assert [s for s, _ in shots] == ["B", "A"] and shots[0][1] != shots[1][1]


@needs_browser
def test_it_prints_all_three_pictures_on_white(made, browser, tmp_path):
    page = Watched(browser, color_scheme="dark").open(made[0] / PAGES[0])
    page.emulate_media(media="print")
    boxes = [f.bounding_box() for f in page.query_selector(".frame").query_selector_all("figure")]
    assert len({b["x"] for b in boxes}) == 3
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"


# ---- what is in it

def test_it_holds_what_was_asked_for(made):
    html = (made[0] / PAGES[0]).read_text()
    metrics = json.loads((made[1] / "metrics.json").read_text())
    for section in ("scores", "curves", "classes", "confusion", "frames", "leaks", "next", "manifest"): assert f'<section id="{section}"' in html, section
    for score in ("mean_dice", "miou", "pixel_acc", "boundary_f"): assert f"<b>{metrics['scores'][score]['value']:.3f}</b>" in html, score
    assert f"{metrics['floors']['all_empty']:.3f}" in html and f"{metrics['colour_floor']['miou']:.3f}" in html
    worst = load_gallery(made[1])[0]
    assert re.search(rf"worst 1 · Dice {worst.dice:.3f}</span><code>{worst.ImageID}", html)
    assert len(re.findall('class="frame"', html)) == min(12, metrics["images"])
    assert json.loads((made[1] / "manifest.json").read_text())["outputs"]["counts.npz"] in html


def test_an_old_run_is_told_what_is_missing(made):
    html = (made[0] / "runs/old/report.html").read_text()
    assert "gallery.npz is missing" in html and "--resume" in html and 'class="frame"' not in html and '<section id="confusion"' in html


def test_the_gallery_is_made_by_evaluation_and_counts_as_output(made):
    a = made[1]
    outputs = json.loads((a / "manifest.json").read_text())["outputs"]
    before = (a / "gallery.npz").read_bytes()
    assert "gallery.npz" in outputs
    evaluate(a)
    assert (a / "gallery.npz").read_bytes() == before     # the same again
    counts = np.load(a / "counts.npz")
    assert {k.ImageID for k in load_gallery(a)} == set(counts["ImageID"].tolist())


def test_a_report_needs_neither_model_nor_data(made, tmp_path):
    "Only files of the run are read: it can be made on another machine, without PyTorch."
    import shutil
    import sys
    shutil.copytree(made[1].folder, tmp_path / "runs/a", ignore=shutil.ignore_patterns("*.safetensors", "checkpoint", "report.html"))
    code = ("import sys; from aerialseg.core import open_run; from aerialseg.report import make_report; make_report(open_run('runs/a'));"
            "assert 'torch' not in sys.modules and 'aerialseg.model' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/a/report.html").read_bytes() == (made[0] / PAGES[0]).read_bytes()


def test_a_large_run_stays_below_its_limit(tmp_path):
    "The most frames a run keeps, of noise that does not compress, 60 classes, 500 epochs, and figures of 20 MB."
    rng, names = np.random.default_rng(0), [f"class{k}" for k in range(60)]
    run, n = create_run(tmp_path / "runs/large", make_recipe("tiny")), KEPT
    ids = [f"frame{k}" for k in range(n)]
    noise = [pack(rng.integers(0, 60, (512, 512), np.uint8)) for _ in range(2)]
    image = pack(rng.integers(0, 255, (512, 512, 3), np.uint8))
    np.savez(run / "gallery.npz", ImageID=np.array(ids), dice=np.linspace(0, 1, n), **{f"image_{k}": np.frombuffer(image, np.uint8) for k in range(n)},
             **{f"{what}_{k}": np.frombuffer(noise[i], np.uint8) for k in range(n) for i, what in enumerate(("mask", "pred"))})
    share = {"iou": .1, "dice": .2, "pixel_share": .01, "image_share": 1.}
    score = {"value": .5, "interval": [.4, .6], "definition": "a mean"}
    save_json({"scores": dict.fromkeys(("mean_dice", "miou", "pixel_acc"), score), "floors": {"all_empty": .1, "all_majority": .2}, "images": n, "groups": 20,
               "classes": dict.fromkeys(names, share), "absent": [], "confusion": rng.integers(0, 10**6, (60, 60))}, run / "metrics.json")
    import pandas as pd
    save_table(pd.DataFrame({"epoch": range(500), "train_loss": rng.random(500), "miou": rng.random(500)} | {f"iou_{c}": rng.random(500) for c in names}), run / "history.csv")
    for k in range(10): run.figure(f"eda_{k}").write_bytes(rng.bytes(2_000_000))
    path = make_report(run)
    html = path.read_text()
    assert 0.5 * MOST < path.stat().st_size <= MOST == 8_000_000
    assert "figures/eda_0.png" in html and "Left out" in html and html.count('class="frame"') >= 3 and "worst 1 ·" in html


# ---- the command

def test_compare_writes_the_page(made, aerialseg):
    done = aerialseg("compare", "runs/a", "runs/b", "--report", "pages/two.html", cwd=made[0])
    assert done.returncode == 0 and "pages/two.html" in done.stdout, done.stderr
    assert (made[0] / "pages/two.html").read_bytes() == (made[0] / "compare.html").read_bytes()


def test_the_templates_are_in_the_package():
    "A wheel without them could not write a page."
    setup = (Path(__file__).parents[1] / "setup.py").read_text()
    assert '"templates/*"' in setup
    folder = Path(__file__).parents[1] / "aerialseg/templates"
    assert {p.name for p in folder.iterdir()} == {"style.css", "page.js", "parts.html", "report.html", "compare.html"}
