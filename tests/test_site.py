"The documentation site: built once, from disk, as a visitor finds it."
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from browser import PHONE, WIDE, Watched, needs_browser, open_browser

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ["index.html", "05_augmentation.html", "studies/23b_leak.html", "api/rle.html"]    # front page, pictures and code, a study, the API


def the_builder():
    spec = importlib.util.spec_from_file_location("site_builder", ROOT / "docs/build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "What `make docs` calls, into another folder; it leaves nothing behind in the checkout."
    out = tmp_path_factory.mktemp("site") / "docs"
    state = lambda: subprocess.run(["git", "status", "--short"], cwd=ROOT, capture_output=True, text=True).stdout
    before = state()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run([sys.executable, "docs/build.py", str(out)], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "index.html").as_uri() in done.stdout, "it does not say which file to open"
    assert state() == before
    return out


@pytest.fixture(scope="module")
def pages(site):
    "Every page as text, by its path in the site."
    return {p.relative_to(site).as_posix(): p.read_text(encoding="utf-8") for p in sorted(site.rglob("*.html"))}


@pytest.fixture(scope="module")
def browser():
    with open_browser() as b: yield b


def main_of(text: str) -> str:
    return text[text.index("<main "):text.index("</main>")]


# ---------------------------------------------------------------- what is in the pages

def test_every_notebook_is_a_page_with_its_code_and_pictures(pages):
    for path in (p.relative_to(ROOT / "nbs") for p in (ROOT / "nbs").rglob("*.ipynb")):
        assert path.with_suffix(".html").as_posix() in pages or any(part[0] in "._" for part in path.parts), path
    front, rle = main_of(pages["index.html"]), main_of(pages["09b_rle.html"])
    assert "images/overview.png" in front and "make run" in front and "mIoU" in front
    assert "runs_to_rle" in rle and "<img" in rle and "nbdev_export" not in rle and "default_exp" not in rle


def test_no_broken_link(site, pages):
    "Every link and every source of every page leads to a file, every anchor to a place on its page."
    ids = {name: {unquote(i) for i in re.findall(r'\bid="([^"]+)"', text)} for name, text in pages.items()}
    broken, seen = [], 0
    for name, text in pages.items():
        for link in set(re.findall(r'<(?:a|img|script|link)\b[^>]*?\b(?:href|src)="([^"]*)"', text)):
            if re.match(r"https?:|mailto:", link): continue
            seen += 1
            path, _, anchor = unquote(link).partition("#")
            target = (site / name).parent / path if path else site / name
            where = Path(os.path.normpath(target))
            if where.is_dir(): where = where / "index.html"
            key = where.relative_to(site).as_posix() if where.is_relative_to(site) else None
            if key is None or not where.is_file() or where.suffix == ".ipynb" or (anchor and anchor not in ids.get(key, ())): broken.append(f"{name}: {link}")
    assert not broken, broken[:20]
    assert seen > 5000


def test_no_page_names_a_file_on_another_machine(pages):
    "Scripts, styles, fonts and pictures are the site's own; only what a reader clicks may lead outside."
    for name, text in pages.items():
        assert not re.findall(r'<(?:img|script|iframe|source)\b[^>]*\bsrc="(?:https?:)?//|<link\b[^>]*\bhref="(?:https?:)?//', text), name


def test_names_lead_to_the_reference_and_back(pages):
    assert '<a href="api/rle.html#mask_to_rle"><code>mask_to_rle</code></a>' in "".join(pages[p] for p in pages if "/" not in p)
    assert 'href="api/rle.html#mask_to_rle">aerialseg.rle.mask_to_rle</a>' in pages["09b_rle.html"]
    assert 'href="../09b_rle.html#def-mask_to_rle"' in pages["api/rle.html"]
    entry = pages["api/rle.html"].split('<section id="mask_to_rle"')[1].split("</section>")[0]
    for part in ("mask_to_rle(mask: ndarray", "Encode one class", "<th>Parameter</th>", "0/1 or bool", "row, column"): assert part in entry, part
    modules = [p for p in (ROOT / "aerialseg").rglob("*.py") if p.stem[0] != "_"]
    assert len([p for p in pages if p.startswith("api/")]) == len(modules)


def test_the_sidebar_has_the_series_in_order_and_pages_follow_each_other(pages):
    bar = re.findall(r'<a href="([^"]+)"[^>]*sidebar-link[^>]*><span class="menu-text">([^<]*)', pages["index.html"])
    series = [text for href, text in bar if re.match(r"\d", text) and "/" not in href]
    assert series[:3] == ["00 · Core", "00b · Folder", "00c · Landscape"] and series == sorted(series, key=lambda t: t.split(" ·")[0])
    assert re.findall(r'href="([^"]+)" class="pagination-link', pages["09b_rle.html"]) == ["09_evaluation.html", "09c_pictures.html"]
    sections = re.findall(r'<button[^>]*sidebar-link[^>]*><span class="menu-text">([^<]*)', pages["index.html"])
    assert [s for s in sections if s in ("The series", "Studies", "Maps", "Own data", "API")] == ["The series", "Studies", "Maps", "Own data", "API"]


def test_a_new_folder_or_page_finds_its_place_by_itself():
    build = the_builder()
    assert build.section_of("glossary.ipynb") == "Beside the series" and build.section_of("field_trips/40_lake.ipynb") == "Field trips"
    names = {"index.ipynb": "aerialseg", "00_core.ipynb": "Core", "glossary.ipynb": "Words", "field_trips/40_lake.ipynb": "A lake"}
    found = build.sidebar({k: {"title": v} for k, v in names.items()}, {"aerialseg.core": "api/core.qmd"})
    assert [(s["section"], [e["text"] for e in s["contents"]]) for s in found] == [
        ("The series", ["Start here", "00 · Core"]), ("Beside the series", ["Words"]), ("Field trips", ["40 · A lake"]), ("API", ["core"])]


def test_links_as_the_readme_has_them_work_in_the_site_too():
    link = the_builder().from_root
    assert link("[RLE](nbs/09b_rle.ipynb)", 0) == "[RLE](09b_rle.ipynb)" and link("[RLE](../nbs/09b_rle.ipynb)", 1) == "[RLE](../09b_rle.ipynb)"


def test_every_picture_says_what_it_shows_and_every_page_has_a_name(pages):
    titles = {}
    for name, text in pages.items():
        for img in re.findall(r"<img\b[^>]*>", main_of(text)):
            alt = re.search(r'\salt="([^"]*)"', img)
            assert alt and len(alt[1]) > 10, (name, img[:200])
        assert '<html lang="en"' in text and 'rel="icon"' in text, name
        titles.setdefault(re.search(r"<title>(.*?)</title>", text)[1], []).append(name)
    assert not [t for t in titles.items() if len(t[1]) > 1 or not t[0].strip()]


def test_formulas_are_drawn_without_a_script(pages):
    assert "<math" in pages["07_metrics.html"] and "katex" not in "".join(pages.values()).lower()


def test_names_become_links_for_quarto_too():
    "Quarto has no links from names of its own: ours leave code blocks and links alone."
    link = the_builder().link_names
    to = {"mask_to_rle": "/api/rle.qmd#mask_to_rle", "need": "/api/core.qmd#need"}
    assert link("`mask_to_rle` and `need`, `need()`", to) == "[`mask_to_rle`](/api/rle.qmd#mask_to_rle) and `need`, [`need()`](/api/core.qmd#need)"
    for kept in ("```python\n`mask_to_rle`\n```", "[`mask_to_rle`](x.ipynb)", "`other_name`"): assert link(kept, to) == kept


# ---------------------------------------------------------------- in a browser, from disk

@needs_browser
def test_every_page_loads_without_error_at_both_widths(site, pages, browser):
    "No console error, no request that leaves, nothing wider than the window, at 1280 and at 390."
    seen = Watched(browser, WIDE)
    faults = []
    # what stands over the edge of the text is cut off there: it has to scroll in a box of its own
    cut = lambda: seen.overflow() + seen.page.evaluate("(m => m.scrollWidth - m.clientWidth)(document.querySelector('main'))")
    sizes = [WIDE, PHONE]
    for name in pages:
        seen.open(site / name)
        over = {sizes[0]["width"]: cut()}
        sizes.reverse()         # each page in both; the next one starts in the size where this one ended, which saves a layout
        seen.page.set_viewport_size(sizes[0])
        over[sizes[0]["width"]] = cut()
        if any(over.values()): faults.append(f"{name}: too wide by {over}")
        if seen.errors or seen.external: faults.append(f"{name}: {seen.errors[:2]} {seen.external[:2]}")
        seen.errors.clear(), seen.external.clear()
    assert not faults, faults
    seen.page.context.close()


@needs_browser
def test_search_finds_mask_to_rle_by_keyboard_alone(site, browser):
    seen = Watched(browser)
    page = seen.open(site / "studies/21_boundaries.html")
    page.keyboard.press("/")
    page.keyboard.type("mask_to_rle")
    page.wait_for_selector(".search-result")
    assert page.locator(".search-result").first.inner_text().splitlines()[:2] == ["aerialseg.rle", "mask_to_rle"]
    page.keyboard.press("Enter")
    page.wait_for_url("**/api/rle.html#mask_to_rle")
    page.keyboard.press("Control+k")
    page.keyboard.type("zzzqqq")
    page.wait_for_selector(".search-none")
    page.keyboard.press("Escape")
    assert not page.locator(".smalldocs-search-results").is_visible() and not seen.errors and not seen.external
    page.context.close()


@needs_browser
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_legend_of_the_12_classes_is_visible(site, browser, size):
    from aerialseg.core import LANDCOVER12
    seen = Watched(browser, size)
    page = seen.open(site / "index.html")
    entries = page.locator("ul.legend li")
    assert [t.strip() for t in entries.all_inner_texts()] == [n.replace("_", " ") for n in LANDCOVER12.names] and len(LANDCOVER12.names) == 12
    for i, colour in enumerate(LANDCOVER12.palette):
        assert entries.nth(i).is_visible()
        assert entries.nth(i).locator("span").evaluate("e => getComputedStyle(e).backgroundColor") == f"rgb({', '.join(map(str, colour))})"
    page.context.close()


@needs_browser
def test_the_keyboard_is_enough(site, browser):
    seen = Watched(browser)
    page = seen.open(site / "09b_rle.html")
    focus = "document.activeElement.className + ' ' + document.activeElement.textContent.trim()"
    page.keyboard.press("Tab")
    assert "Skip to the text" in page.evaluate(focus)
    assert page.locator(".skip-link").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "what has the focus shows it"
    page.locator("#quarto-sidebar button", has_text="Studies").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('a[href*=\"20_architectures\"].sidebar-link').checkVisibility()")
    page.keyboard.press("Tab")
    assert "20 · Architectures" in page.evaluate(focus)
    page.keyboard.press("Enter")
    page.wait_for_url("**/studies/20_architectures.html")
    page.context.close()


@needs_browser
def test_the_sidebar_on_a_phone_opens_and_shuts_by_keyboard(site, browser):
    seen = Watched(browser, PHONE)
    page = seen.open(site / "09b_rle.html")
    button, bar = page.locator(".quarto-btn-toggle"), page.locator("#quarto-sidebar")
    assert not bar.is_visible() and button.get_attribute("aria-expanded") == "false"
    button.focus()
    page.keyboard.press("Enter")
    bar.wait_for(state="visible")
    assert "09b · Run lengths" in page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Escape")
    bar.wait_for(state="hidden")
    assert page.evaluate("document.activeElement.className").startswith("quarto-btn-toggle")
    page.context.close()


@needs_browser
def test_light_and_dark_follow_the_system_until_told_otherwise(site, browser):
    paper = lambda page, rgb: page.wait_for_function(f"getComputedStyle(document.body).backgroundColor == 'rgb({rgb})'")
    light, dark = "255, 255, 255", "17, 22, 27"
    seen = Watched(browser, color_scheme="dark")
    page = seen.open(site / "index.html")
    paper(page, dark)
    page.emulate_media(color_scheme="light")
    paper(page, light)
    page.locator(".quarto-color-scheme-toggle").focus()
    page.keyboard.press("Enter")
    paper(page, dark)
    seen.open(site / "api/rle.html")
    paper(page, dark)       # the choice holds on the next page
    page.context.close()


@needs_browser
@pytest.mark.parametrize("name", SAMPLE)
def test_axe_finds_nothing_in_light_and_dark(site, browser, name):
    seen = Watched(browser, reduced_motion="reduce")       # a colour on its way to another one is not judged
    page = seen.open(site / name)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(f"document.documentElement.classList.contains('quarto-dark') == {str(scheme == 'dark').lower()}")
        # the colours are what the other scheme changes
        assert not seen.violations(**({} if scheme == "light" else {"runOnly": ["color-contrast"]})), scheme
    page.context.close()
