"""The gates that a change must pass, one after the other, each with its time. `make test` calls this.

    python tests/gates.py             all gates
    python tests/gates.py notebooks   run every notebook in place at the tiny profile, and clean it
    python tests/gates.py results RUN…  write the front page's table (and, from the first run, its picture)
    python tests/gates.py release     check versions, build, install the wheel into a new environment, run the tiny profile there
    python tests/gates.py release --draft   the same, whatever the versions and the state of the tree
"""
import configparser
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
sys.path.insert(0, str(ROOT))


def sh(*command: str) -> None:
    "Run one of the environment's commands; end here if it fails."
    print("$", " ".join(command), flush=True)
    done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT)
    if done.returncode: sys.exit(f"FAILED: {' '.join(command)}")


def prints() -> dict[str, str]:
    "What every notebook and module looks like now."
    files = [*ROOT.glob("nbs/**/*.ipynb"), *ROOT.glob("aerialseg/**/*.py"), ROOT / "README.md"]
    return {str(f.relative_to(ROOT)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(files)
            if ".ipynb_checkpoints" not in f.parts}


def unchanged() -> None:
    "Cleaning, exporting and making the README must change nothing."
    before = prints()
    sh("nbdev-clean")
    sh("nbdev-export")
    make_readme()
    after = prints()
    changed = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    if changed: sys.exit(f"FAILED: clean, export or README changed {', '.join(changed)}: commit the notebooks clean and exported")


def make_readme() -> None:
    "README.md from nbs/index.ipynb."
    sh("jupyter", "nbconvert", "--to", "markdown", "--output-dir", ".", "--output", "README", "--log-level", "ERROR",
       "--TagRemovePreprocessor.enabled=True", "--TagRemovePreprocessor.remove_input_tags=hide", "--TagRemovePreprocessor.remove_cell_tags=site", "nbs/index.ipynb")
    shutil.rmtree(ROOT / "README_files", ignore_errors=True)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = readme.replace("](images/", "](nbs/images/")
    (ROOT / "README.md").write_text(re.sub(r"\]\(((?:(?:studies|maps|real)/)?\w+\.ipynb)\)", r"](nbs/\1)", readme), encoding="utf-8")


def results() -> None:
    "nbs/images/results.csv and overview.png from finished runs."
    from aerialseg.core import load_json
    from aerialseg.expected import run_scores
    rows = []
    for run in map(Path, sys.argv[2:]):
        metrics, manifest, audit = (load_json(run / f"{n}.json") for n in ("metrics", "manifest", "audit"))
        show = lambda s: f"{s['value']:.3f} [{s['interval'][0]:.3f}, {s['interval'][1]:.3f}]"
        final = lambda m: f"{run_scores(m)['mean_dice_presence']:.3f}" if m["presence"]["applied"] else "not used"
        rows.append({"run": run.name, "training frames": audit["split"]["train"], "validation frames": audit["split"]["valid"],
                     "mIoU": show(metrics["scores"]["miou"]), "mean Dice": show(metrics["scores"]["mean_dice"]),
                     "… with presence thresholds": final(metrics),
                     "floor of mean Dice": f"{metrics['floors']['all_majority']:.3f}",
                     "minutes": f"{sum(manifest['seconds'].values()) / 60:.1f}",
                     "code": (manifest["code"]["commit"] or "–")[:8]})
    import pandas as pd
    (ROOT / "nbs/images").mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(ROOT / "nbs/images/results.csv", index=False)
    from PIL import Image
    picture = Image.open(Path(sys.argv[2]) / "figures/eval_frames.png").convert("RGB")
    picture.quantize(128).save(ROOT / "nbs/images/overview.png", optimize=True)


def lighten(nb):
    "Store the pictures of a notebook with 256 colours each: a third of the bytes, no difference to the eye."
    import base64
    import io
    from PIL import Image
    for output in (o for c in nb.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})):
        picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).convert("RGB")
        packed = io.BytesIO()
        picture.quantize(256).save(packed, "PNG", optimize=True)
        if len(packed.getvalue()) < 0.75 * len(output.data["image/png"]) * 3 / 4:
            output.data["image/png"] = base64.b64encode(packed.getvalue()).decode()
    return nb


def run_notebooks() -> None:
    "Every notebook from top to bottom at the tiny profile, outputs kept, then cleaned."
    import nbformat
    from nbclient import NotebookClient
    from aerialseg.runner import collapse
    os.environ.pop("MPLBACKEND", None)     # pictures go into the notebooks
    chosen = sys.argv[2:] or [str(p) for folder in ("nbs", "nbs/studies", "nbs/maps", "nbs/real", "nbs/exercises", "nbs/solutions")
                              for p in sorted((ROOT / folder).glob("*.ipynb"))]
    for path in map(Path, chosen):
        start, nb = time.perf_counter(), nbformat.read(path, 4)
        NotebookClient(nb, timeout=900, extra_arguments=["--log-level=50"], resources={"metadata": {"path": str(path.parent)}}).execute()
        nb = collapse(nb)
        for c in nb.cells:      # progress bars are for who waits
            if "outputs" in c: c.outputs = [o for o in c.outputs if o.get("name") != "stderr"]
        nbformat.write(lighten(nb), path)
        print(f"{path.name:32s} {time.perf_counter() - start:6.1f} s  {path.stat().st_size / 1e3:6.0f} kB", flush=True)
    sh("nbdev-clean")


def version_faults(root: Path = ROOT) -> list[str]:
    "What must be mended before a release gets its number."
    ini = configparser.ConfigParser(delimiters=["="])
    ini.read(root / "settings.ini", encoding="utf-8")
    version = ini["DEFAULT"]["version"]
    found = {"CHANGELOG.md's top section": re.search(r"^## (\S+)", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[1],
             "aerialseg/__init__.py": re.search(r'__version__ = "(.+?)"', (root / "aerialseg/__init__.py").read_text())[1],
             "CITATION.cff": re.search(r"^version: \"?([^\s\"]+)", (root / "CITATION.cff").read_text(encoding="utf-8"), re.M)[1]}
    return [f"{where} says {what}, settings.ini {version}" for where, what in found.items() if what != version]


def build() -> Path:
    "The wheel, by way of the source distribution; without isolation, because setuptools and wheel are here and a network may not be."
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    sh("python", "-m", "build", "--no-isolation", "--outdir", "dist")
    return next((ROOT / "dist").glob("*.whl"))


def release() -> None:
    "From a clean tree to a wheel that was seen to run where nothing else of this checkout is."
    faults = version_faults()
    if subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True).stdout: faults.append("the tree has changes: commit them")
    for fault in faults: print(f"NOT YET: {fault}")
    if faults and "--draft" not in sys.argv: sys.exit("FAILED: see above; --draft goes on all the same")
    wheel = build()
    with tempfile.TemporaryDirectory(prefix="aerialseg-release-") as tmp:
        venv, empty = Path(tmp) / "venv", Path(tmp) / "empty"
        empty.mkdir()
        steps = {"a new environment": [sys.executable, "-m", "venv", str(venv)],
                 "the wheel and what training needs": [str(venv / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", "-c",
                                                       str(ROOT / "constraints.txt"), f"{wheel}[train]"],
                 "the tiny profile": [str(venv / "bin/aerialseg"), "run", "--profile", "tiny"]}
        alone = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        for what, command in steps.items():
            start = time.perf_counter()
            if subprocess.run(command, cwd=empty, env=alone).returncode: sys.exit(f"FAILED: {what}")
            print(f"== {what}: {time.perf_counter() - start:.0f} s", flush=True)
        size = sum(p.stat().st_size for p in venv.rglob("*") if p.is_file() and not p.is_symlink())
        if not (empty / "runs/tiny/submission.csv").exists(): sys.exit("FAILED: the run left no submission.csv")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e3:.0f} kB; the environment {size / 1e9:.1f} GB")


def test() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"      # two notebooks at a time on two cores: one thread each
    env = {"the notebooks": lambda: sh("nbdev-test", "--n-workers", "2", "--timing"),
           "the tests": lambda: sh("pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"),
           "clean and export change nothing": unchanged}
    for name, gate in env.items():
        start = time.perf_counter()
        print(f"\n== {name}", flush=True)
        gate()
        print(f"== {name}: passed in {time.perf_counter() - start:.0f} s", flush=True)
    print("\nAll gates passed.")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "agg")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")   # threads that wait must not spin: two cores are shared
    {"notebooks": run_notebooks, "readme": make_readme, "results": results, "release": release}.get(sys.argv[1] if len(sys.argv) > 1 else "", test)()
