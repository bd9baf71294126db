"""The documentation site, from the notebooks as they are committed: nothing is run. `make docs` calls this.

    python docs/build.py          into _docs/, then says which file to open
    python docs/build.py FOLDER   into FOLDER

Four steps: nbdev reads the notebooks (title, hidden cells, directives) and we add what a page needs; smalldocs writes the API
reference from the docments; Quarto renders where it is installed, smalldocs otherwise; and `finish` mends what a site opened
from disk, by keyboard or on a phone still lacks.
"""
import base64
import hashlib
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
HERE, NBS, PACKAGE = ROOT / "docs", ROOT / "nbs", "aerialseg"
# the sidebar: a notebook goes into the first section whose pattern its path matches; another folder becomes a section of its own
SECTIONS = [("The series", r"index|\d"), ("Studies", r"studies/"), ("Own data", r"maps/(31[a-z]|32)_"), ("Maps", r"maps/")]
ORDER = ["The series", "Beside the series", "Studies", "Maps", "Own data"]   # folders that are not named here follow, then the API

# what the places with links are called, for who hears the page
NAMES = {'class="navbar': "Site", 'class="quarto-secondary-nav': "Where this page is", 'id="quarto-sidebar"': "All pages", 'id="TOC"': "On this page",
         'class="page-navigation': "The page before and the page after"}


# ---------------------------------------------------------------- what nbdev makes of the notebooks

def prose(source: str) -> str:
    "Markdown as plain text: no marks, no links, no code fences."
    source = re.sub(r"(?ms)^```.*?^```|^#+ .*?$|^\|.*?$|^- |^> ", "", source)
    return re.sub(r"\s+", " ", re.sub(r"!?\[([^\]]*)\]\([^)]*\)|[`*$]", lambda m: m[1] or "", source)).strip()


def alt_text(before: str, most: int = 220) -> str:
    "What a picture shows: the last sentence before it."
    text = prose(before).rstrip(":. ")
    last = re.split(r"(?<=[.?!]) (?=[A-Z*])", text)[-1]
    return last if len(last) <= most else last[:most].rsplit(" ", 1)[0] + " …"


def pictures(cell) -> int:
    "How many pictures a cell has among its outputs."
    return sum(any(mime.startswith("image/") for mime in o.get("data", {})) for o in cell.get("outputs", []))


def from_root(source: str, depth: int) -> str:
    "Links as README.md writes them, from the root of the repository, as a page of the site has them."
    return re.sub(r"\]\((?:\.\./)*nbs/", "](" + "../" * depth, source)


def defined(source: str) -> list[str]:
    "The names that an exported cell defines at its top level."
    return re.findall(r"(?m)^(?:async def|def|class) (\w+)|^([A-Za-z]\w*)\b[^=(\n]*?=[^=]", source)


def processors():
    "nbdev's processors without those that run code or put a table in the place of the code: here the code is the story."
    from nbdev import processors as p
    from nbdev.frontmatter import FrontmatterProc

    class Page(p.Processor):
        "What nbdev does not do: pictures say what they show, imports fold away, exported names have an anchor."
        def begin(self): self.said, self.title = "", ""

        def cell(self, cell):
            if cell.cell_type == "raw": self.title = str((yaml.safe_load(cell.source.strip("-\n ")) or {}).get("title", ""))
            if cell.cell_type == "markdown":
                self.said = cell.source if prose(cell.source) else self.said
                cell.source = from_root(cell.source, self.depth)
            if cell.cell_type != "code": return
            if cell.directives_.keys() & {"hide", "default_exp"}: cell.source = None; return
            options, exported = {}, cell.directives_.keys() & {"export", "exports"}
            names = [a or b for a, b in defined(cell.source)] if exported else []
            if names: options["label"] = f"def-{names[0]}"
            lines = [line for line in cell.source.splitlines() if line.strip() and not line.startswith("#|")]
            if exported and all(re.match(r"(import|from) |[ )]|\)", line) for line in lines):
                options |= {"code-fold": "true", "code-summary": "What this module imports"}
            if pictures(cell) and "fig-alt" not in cell.source: options["fig-alt"] = alt_text(self.said) or self.title
            head = "".join(f"#| {k}: {json.dumps(v, ensure_ascii=False) if k in ('fig-alt', 'code-summary') else v}\n" for k, v in options.items())
            cell.source = head + cell.source

    class Pages(p.FilterDefaults):
        def base_procs(self):
            return [FrontmatterProc, p.populate_language, p.strip_ansi, p.hide_line, p.filter_stream_, p.rm_header_dash, p.strip_hidden_metadata]

        def __call__(self, nb):
            Page.depth = len(Path(nb.path_).resolve().relative_to(NBS).parts) - 1
            done = self.nb_proc(nb)
            done.procs = [*done.procs, Page(nb)]
            done.process()
    return Pages


def split_title(nb) -> None:
    "nbdev takes the cell with the title for the page's head, all of it: what follows the title and its line gets a cell of its own."
    from fastcore.nbio import mk_cell
    first = nb.cells[0]
    m = re.match(r"# .+\n\n(?:> .+\n?)*", first.source)
    if first.cell_type == "markdown" and m and (rest := first.source[m.end():].strip()):
        first.source = m[0].strip()
        nb.cells.insert(1, mk_cell(rest, "markdown"))


def read_notebooks(work: Path) -> dict[str, dict]:
    "Processed notebooks into `work`; for each its title, its module, and the cells where names are exported."
    from fastcore.nbio import read_nb, write_nb
    pages, process = {}, processors()
    for path in sorted(NBS.rglob("*.ipynb"), key=lambda p: p.relative_to(NBS).as_posix()):
        where = path.relative_to(NBS).as_posix()
        if any(part[0] in "._" for part in path.relative_to(NBS).parts): continue
        nb = read_nb(path)
        module = next((m[1] for c in nb.cells if (m := re.match(r"#\|\s*default_exp (\S+)", c.source))), None)
        names = {a or b: f"def-{(d[0][0] or d[0][1])}" for c in nb.cells if c.cell_type == "code" and re.match(r"#\|\s*exports?\b", c.source)
                 for d in [defined(c.source)] for a, b in d}
        nb.path_ = str(path)
        split_title(nb)
        process()(nb)
        front = yaml.safe_load(nb.cells[0].source.strip("-\n ")) if nb.cells and nb.cells[0].cell_type == "raw" else {}
        front.pop("output-file", None)
        front.setdefault("title", path.stem)
        if nb.cells and nb.cells[0].cell_type == "raw":
            nb.cells[0].source = "---\n" + yaml.safe_dump(front, allow_unicode=True, width=10**6) + "---\n"
        (work / where).parent.mkdir(parents=True, exist_ok=True)
        write_nb(nb, work / where)
        pages[where] = {"title": front["title"], "module": module and f"{PACKAGE}.{module}", "names": names}
    return pages


# ---------------------------------------------------------------- sidebar, API pages, links from names

def section_of(where: str) -> str:
    "The section of the sidebar that a notebook belongs to."
    for title, pattern in SECTIONS:
        if re.match(pattern, where): return title
    return where.split("/")[0].replace("_", " ").capitalize() if "/" in where else "Beside the series"


def entry(where: str, page: dict) -> dict:
    "One line of the sidebar: the notebook's number, as its file has it, and its title."
    number = re.match(r"\d+[a-z]?", Path(where).stem)
    return {"text": "Start here" if where == "index.ipynb" else f"{number[0]} · {page['title']}" if number else page["title"], "href": where}


def sidebar(pages: dict[str, dict], api: dict[str, str]) -> list[dict]:
    "Sections in their order, each with its notebooks, and the pages of the API."
    found: dict[str, list] = {}
    for where in sorted(pages, key=lambda w: (w != "index.ipynb", w)): found.setdefault(section_of(where), []).append(entry(where, pages[where]))
    titles = [t for t in ORDER if t in found] + sorted(t for t in found if t not in ORDER)
    reference = [{"text": module.removeprefix(f"{PACKAGE}."), "href": href} for module, href in api.items()]
    return [{"section": t, "contents": found[t]} for t in titles] + [{"section": "API", "contents": reference}]


def write_api(work: Path, pages: dict[str, dict]) -> dict[str, str]:
    "One page for each module from its docments, in the order of the notebooks; and where each name is, for links from prose."
    from smalldocs import api
    api.build(api.Settings(work, [PACKAGE], root=ROOT))
    symbols = json.loads((work / "_symbols.json").read_text(encoding="utf-8"))
    order = {}
    for where, page in pages.items():
        file = next((f for f in (work / "api").glob("*.qmd") if f'title: "{page["module"]}"' in f.read_text(encoding="utf-8")[:300]), None)
        if not file: continue
        order[page["module"]] = here = file.relative_to(work).as_posix()
        page["api"] = file.relative_to(work).with_suffix(".html").as_posix()
        page["entries"] = {n.rpartition(".")[2] for n, to in symbols.items() if to.startswith(f"/{here}#")}
        for name, cell in page["names"].items():
            symbols.setdefault(name, f"/{where}#{cell}")        # a constant has no entry in the reference: its cell is its definition
        text = file.read_text(encoding="utf-8")
        told = lambda m: f"{m[0]}\n\n[explained in {page['title']}](/{where}#{page['names'][m[1]]}){{.explained}}" if m[1] in page["names"] else m[0]
        text = re.sub(r"(?m)^## (?:class )?(\w+) \{#\w+\}$", told, text)
        origin = f"The module of [{page['title']}](/{where}), where each of these is built and tried."
        file.write_text(text.replace("\n---\n", f"\n---\n\n{origin}\n", 1), encoding="utf-8")
    (work / "_symbols.json").write_text(json.dumps(symbols), encoding="utf-8")
    return order


def link_names(text: str, symbols: dict[str, str]) -> str:
    "Names in backticks become links to where they are explained; code blocks and what is a link already stay."
    def link(m: re.Match) -> str:
        name = (m[2] or "").removesuffix("()")
        return f"[`{m[2]}`]({symbols[name]})" if name in symbols and (re.search(r"[_.]|^[A-Z]", name) or m[2].endswith("()")) else m[0]
    return re.sub(r"(?ms)(^```.*?^```|\[[^\]]*\]\([^)]*\))|`([\w.]+(?:\(\))?)`", link, text)


# ---------------------------------------------------------------- rendering, and after it

def for_quarto(config: dict, work: Path) -> dict:
    "What smalldocs does by itself and Quarto must be given: links from names, its own themes, formulas without a script from elsewhere."
    symbols = json.loads((work / "_symbols.json").read_text(encoding="utf-8"))
    for path in work.rglob("*.ipynb"):
        nb = json.loads(path.read_text(encoding="utf-8"))
        for cell in nb["cells"]:
            if cell["cell_type"] == "markdown": cell["source"] = link_names("".join(cell["source"]), symbols)
        path.write_text(json.dumps(nb), encoding="utf-8")
    config["format"]["html"] |= {"theme": {"light": "cosmo", "dark": "darkly"}, "html-math-method": "mathml"}
    return config


def render(work: Path) -> None:
    "The pages in `work` as HTML in `work/_docs`."
    if shutil.which("quarto"):
        subprocess.run(["quarto", "render", ".", "--no-execute", "--output-dir", "_docs"], cwd=work, check=True)
        return
    from smalldocs.site import build as smalldocs
    if warnings := smalldocs(work, quiet=True).warnings: sys.exit("The site has faults, mend them in the notebooks:\n" + "\n".join(warnings))


def store_picture(folder: Path, mime: str, data: str) -> tuple[str, str]:
    "A picture from inside a page as a file of its own: its name, and its size for the page."
    from PIL import Image
    raw = base64.b64decode(data)
    name = hashlib.sha256(raw).hexdigest()[:16] + (".jpg" if mime == "image/jpeg" else ".png")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / name).exists(): (folder / name).write_bytes(raw)
    with Image.open(io.BytesIO(raw)) as picture: return name, f'width="{picture.width}" height="{picture.height}"'


def formula(m: re.Match) -> str:
    "A formula as MathML, which browsers draw by themselves."
    from latex2mathml.converter import convert
    display = "display" in m[1]
    return convert(html.unescape(m[2]).strip()[2:-2], display="block" if display else "inline")


def to_api(where: str, pages: dict[str, dict], up: str):
    "For the cells of a page that are exported: links to what they define in the reference."
    page = pages.get(where, {})

    def link(m: re.Match) -> str:
        names = [n for n, cell in page.get("names", {}).items() if cell == m[1] and n in page.get("entries", ())]
        links = " ".join(f'<a href="{up}{page["api"]}#{n}">{page["module"]}.{n}</a>' for n in names)
        return f'{m[0]}<div class="in-api">{links}</div>' if links else m[0]
    return link


def finish(site: Path, pages: dict[str, dict]) -> None:
    "Pictures out of the pages, formulas without a script, buttons where buttons are meant, and an index that a page from disk can load."
    store = site / "pictures"
    for path in sorted(site.rglob("*.html")):
        up = "../" * len(path.relative_to(site).parent.parts)

        def picture(m: re.Match) -> str:
            name, size = store_picture(store, m[2], m[3])
            return f'<img{m[1]} src="{up}pictures/{name}" {size} loading="lazy"'
        text = path.read_text(encoding="utf-8")
        text = re.sub(r'<img([^>]*?) src="data:(image/(?:png|jpeg));base64,([^"]+)"', picture, text)
        text = re.sub(r'<span class="math (\w+)">(.*?)</span>', formula, text, flags=re.S)
        text = re.sub(r'<div id="(def-\w+)" class="cell">', to_api(path.relative_to(site).with_suffix(".ipynb").as_posix(), pages, up), text)
        text = re.sub(r'<link[^>]*katex[^>]*>|<script[^>]*katex[^>]*></script>', "", text)
        text = re.sub(r'<a [^>]*sidebar-item-toggle.*?</a>', "", text)      # its twin beside it does the same
        text = re.sub(r'<a ([^>]*data-bs-toggle="collapse"[^>]*?) role="navigation"([^>]*)>(.*?)</a>',
                      r'<button type="button" \1\2>\3</button>', text)
        text = re.sub(r'<a (class="quarto-color-scheme-toggle[^>]*?) href="" title="[^"]*"([^>]*)>(.*?)</a>',
                      r'<button type="button" \1 title="Light or dark" aria-label="Light or dark"\2>\3</button>', text)
        if path.is_relative_to(site / "api"):
            text = text.replace('<body class="', '<body class="api ', 1)
            text = re.sub(r'class="(?:title|nav-page-text)">[\w.]+', lambda m: m[0].replace(".", ".<wbr>"), text)
        for nav, name in NAMES.items(): text = text.replace(f"<nav {nav}", f'<nav aria-label="{name}" {nav}')
        text = text.replace("<th></th>", "<td></td>")       # the corner of a table of pandas heads nothing
        text = text.replace('<main class="content"', '<main tabindex="-1" class="content"')
        text = re.sub(r'<script src="[^"]*fuse[^"]*"></script>', "", text)
        text = text.replace("</head>", f'<script src="{up}site.js" defer></script></head>', 1)
        path.write_text(text, encoding="utf-8")
    if (site / "search.json").exists():
        entries = json.loads((site / "search.json").read_text(encoding="utf-8"))
        for e in entries: e["text"] = re.sub(rf"^\s*explained in .*?(?={re.escape(e['section'])}\b)", "", e["text"]) if e["section"] else e["text"]
        (site / "search.js").write_text("window.searchIndex=" + json.dumps(entries, ensure_ascii=False), encoding="utf-8")
        (site / "search.json").unlink()
        shutil.rmtree(site / "site_libs/fuse", ignore_errors=True)


def build(out: Path) -> Path:
    "The whole site into `out`, which is replaced; what comes out is the front page."
    os.environ.setdefault("MPLBACKEND", "agg")
    if out.exists() and any(out.iterdir()) and not (out / "site_libs").is_dir():
        sys.exit(f"{out} holds something else than a site: name another folder")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shutil.copytree(NBS, work, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.ipynb", ".*", "_*", "*.yml"))
        pages = read_notebooks(work)
        order = write_api(work, pages)
        for name in ("site.css", "site.js", "favicon.svg", "before.html"): shutil.copy(HERE / name, work / name)
        config = yaml.safe_load((HERE / "quarto.yml").read_text(encoding="utf-8"))
        config["website"]["sidebar"]["contents"] = sidebar(pages, order)
        if shutil.which("quarto"): config = for_quarto(config, work)
        (work / "_quarto.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
        render(work)
        finish(work / "_docs", pages)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(work / "_docs", out)
    return out / "index.html"


if __name__ == "__main__":
    os.chdir(ROOT)      # nbdev looks for pyproject.toml from here
    start = time.perf_counter()
    page = build(Path(sys.argv[1]).resolve() if sys.argv[1:] else ROOT / "_docs")
    size = sum(f.stat().st_size for f in page.parent.rglob("*") if f.is_file())
    print(f"{len(list(page.parent.rglob('*.html')))} pages, {size / 1e6:.1f} MB, in {time.perf_counter() - start:.0f} s. Open it: {page.as_uri()}")
