"""What each notebook takes, as a reader runs it: seconds, and memory of the kernel and its children.

    python bench/notebooks.py                     every notebook, one at a time; writes bench/notebooks.csv
    python bench/notebooks.py nbs/08_training.ipynb …   only these; the other rows stay

At the tiny profile, which is what opening a notebook and running it gives, each in a kernel of its own. `cpu_seconds` is the processor time of the
kernel and its children, `seconds` what a clock says; beside other work the second is much longer. Memory is the share of each process (PSS: what
several processes have in common counts once), looked up five times a second, so a shorter peak is missed.
"""
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import nbformat
import pandas as pd
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from aerialseg.manifest import cpu_name

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "bench/notebooks.csv"
FOLDERS = ("", "studies", "maps", "real", "solutions")


def share(process: psutil.Process) -> int: # bytes
    "A process's share of the memory; 0 if it is gone."
    try: return 1024 * int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{process.pid}/smaps_rollup").read_text(), re.M)[1])
    except (OSError, TypeError): return 0


def work(process: psutil.Process) -> float: # seconds
    "Processor time of a process and of the children that it has waited for; 0 if it is gone."
    try: return sum(process.cpu_times()[:4])
    except psutil.Error: return 0.


class Watch:
    "The most memory that all processes below this one had at once, and the processor time they took, while the block runs."
    def __enter__(self):
        self.most, self.seconds, self.done = 0, 0., threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()
        return self

    def look(self):
        while not self.done.wait(.2):
            below = psutil.Process().children(recursive=True)
            self.most, self.seconds = max(self.most, sum(map(share, below))), max(self.seconds, sum(map(work, below)))

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def measure(path: Path) -> dict: # notebook, cpu_seconds, seconds, peak_mb, words, cells
    "Run a notebook from top to bottom; it stays as it is."
    nb = nbformat.read(path, 4)
    prose = " ".join(c.source for c in nb.cells if c.cell_type == "markdown")
    shown = [c for c in nb.cells if c.cell_type == "code" and not re.search(r"^#\| (hide|default_exp)", c.source, re.M)]
    start = time.perf_counter()
    with Watch() as watch:
        NotebookClient(nb, timeout=1800, extra_arguments=["--log-level=50"], resources={"metadata": {"path": str(path.parent)}}).execute()
    return {"notebook": path.relative_to(ROOT / "nbs").with_suffix("").as_posix(), "cpu_seconds": round(watch.seconds, 1),
            "seconds": round(time.perf_counter() - start, 1), "peak_mb": round(watch.most / 2**20),
            "words": len(re.sub(r"\]\([^)]*\)", "]", prose).split()), "cells": len(shown)}


def main() -> None:
    every = [p for f in FOLDERS for p in sorted((ROOT / "nbs" / f).glob("[0-9]*.ipynb"))]
    chosen = [Path(a).resolve() for a in sys.argv[1:]] or every
    order = [p.relative_to(ROOT / "nbs").with_suffix("").as_posix() for p in every]
    commit = subprocess.run(["git", "rev-parse", "--short=8", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    rows = {} if len(sys.argv) == 1 or not TABLE.exists() else {r["notebook"]: r for r in pd.read_csv(TABLE).to_dict("records")}
    failed = []
    for path in chosen:
        try: found = measure(path)
        except CellExecutionError as e:
            failed.append(path.name)
            print(f"{path.name} fails: {str(e)[-600:]}", flush=True)
            continue
        row = found | {"threads": int(os.environ["OMP_NUM_THREADS"]), "cores": os.cpu_count(), "cpu": cpu_name(), "commit": commit or "–"}
        rows[row["notebook"]] = row
        print(json.dumps({k: row[k] for k in ("notebook", "cpu_seconds", "seconds", "peak_mb", "words", "cells")}), flush=True)
        pd.DataFrame([rows[name] for name in order if name in rows]).to_csv(TABLE, index=False)      # a notebook that is gone takes its row with it
    print(f"{TABLE} written")
    if failed: sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
