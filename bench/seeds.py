"""What luck does to a score: a profile run with several seeds, everything drawn anew (scenes, split, weights, windows).

    python bench/seeds.py demo 0 1 2 3 4     add these seeds to nbs/expected/demo.csv (rows of another recipe are dropped)

Runs the stages that decide a score (scenes, split, training, evaluation), as the notebooks of the series do, in runs/seeds/.
A seed that is finished is not run again.
"""
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from aerialseg.core import create_run, load_table, make_recipe, save_table
from aerialseg.dataset import make_split
from aerialseg.evaluation import evaluate
from aerialseg.expected import JUDGED, expected_file, run_scores, seedless
from aerialseg.core import load_json
from aerialseg.manifest import code_state
from aerialseg.scenes import scenes_for
from aerialseg.training import train


def one(profile: str, seed: int) -> dict:
    "Scores of one seed."
    recipe = make_recipe(profile, seed=seed)
    run = create_run(ROOT / "runs" / "seeds" / f"{profile}-{seed}", recipe)
    start = time.perf_counter()
    if not (run / "metrics.json").exists():
        scenes_for(run)
        make_split(run)
        train(run)
        evaluate(run)
    row = {"seed": seed, "recipe": seedless(recipe)} | {n: round(v, 4) for n, v in run_scores(load_json(run / "metrics.json")).items()}
    print(row, f"{time.perf_counter() - start:.0f} s", flush=True)
    return row | {"commit": (code_state()["commit"] or "–")[:8]}


def main(profile: str, *seeds: str) -> None:
    import pandas as pd
    path = expected_file(profile)
    for seed in map(int, seeds):
        row = one(profile, seed)
        old = load_table(path).to_dict("records") if path.exists() else []
        kept = [r for r in old if r["recipe"] == row["recipe"] and r["seed"] != seed]      # another process may have added rows
        save_table(pd.DataFrame([*kept, row]).sort_values("seed"), path)
    table = load_table(path)
    print(table[list(JUDGED)].agg(["mean", "std", "min", "max"]).round(4))


if __name__ == "__main__": main(*(sys.argv[1:] or ["demo", "0", "1", "2", "3", "4"]))
