"Two ways of doing the same, timed in turn in one process: the ratio of each pair, its median and spread."
import json
import platform
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent


def seconds(f: Callable, clock: Callable = time.perf_counter) -> float: # clock: process_time leaves out what other programs took
    start = clock()
    f()
    return clock() - start


def pair(name: str, ours: Callable, other: Callable, target: float | None = None, repeats: int = 9, clock: Callable = time.perf_counter) -> dict:
    "How many times as long `other` takes; A B A B …, after one round that is not counted."
    ours(), other()
    times = np.array([(seconds(ours, clock), seconds(other, clock)) for _ in range(repeats)])
    ratio = times[:, 1] / times[:, 0]
    row = {"what": name, "ours_ms": 1e3 * np.median(times[:, 0]), "other_ms": 1e3 * np.median(times[:, 1]), "ratio": np.median(ratio),
           "ratio_min": ratio.min(), "ratio_max": ratio.max(), "target": target, "repeats": repeats}
    print(f"{name:62s} {row['ours_ms']:9.2f} ms  {row['other_ms']:9.2f} ms  × {row['ratio']:.1f} ({row['ratio_min']:.1f} to {row['ratio_max']:.1f})"
          + (f"  target × {target}" if target else ""), flush=True)
    return row


def alone(name: str, value: float, unit: str, target: str) -> dict:
    "A figure without a rival."
    print(f"{name:62s} {value:9.2f} {unit}  target {target}", flush=True)
    return {"what": name, "value": value, "unit": unit, "limit": target}


def save(rows: list[dict], name: str) -> None:
    "bench/NAME.csv, with the commit and the machine it came from."
    from aerialseg.manifest import cpu_name
    commit = subprocess.run(["git", "rev-parse", "--short=8", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    table = pd.DataFrame(rows).assign(commit=commit or "–", cpu=cpu_name(), python=platform.python_version())
    table.round(3).to_csv(HERE / f"{name}.csv", index=False)
    draw(table[table.ratio.notna()] if "ratio" in table else table[:0], name)
    print(f"{HERE / name}.csv and .png written")


def draw(table: pd.DataFrame, name: str) -> None:
    "bench/NAME.png: the median ratio of each pair, its spread, and the aim where there is one."
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter
    names = [textwrap.fill(what, 62) for what in table.what]
    fig, ax = plt.subplots(figsize=(10, .2 * sum(n.count("\n") + 2 for n in names) + 1), dpi=80, constrained_layout=True)
    for k, r in enumerate(table.itertuples()):
        ax.plot([r.ratio_min, r.ratio_max], [k, k], lw=5, color="#9db8cc", solid_capstyle="round")
        ax.plot(r.ratio, k, "o", color="#23262b")
        if r.target == r.target and r.target is not None: ax.plot(r.target, k, "|", color="#b0552f", ms=16, mew=2)
    ax.axvline(1, color="#888", lw=1)
    ax.set(yticks=range(len(table)), yticklabels=names, xscale="log", xlabel="times as long as ours (red: the aim)")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.margins(y=.1)
    ax.invert_yaxis()
    fig.savefig(HERE / f"{name}.png")
    plt.close(fig)
