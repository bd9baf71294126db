"""A large orthomosaic mapped: seconds against the network alone on the same tiles, and the largest memory. Writes bench/mapping.csv.

    python bench/mapping.py [RUN] [SIDE]        a trained run, such as runs/demo (none: the demo's network, untrained), pixels a side (20000)
"""
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
import torch

from aerialseg.core import LANDCOVER12, create_run, make_recipe, own_memory
from aerialseg.maps import jobs, polygons
from aerialseg.maps.jobs import MapOptions, Task
from aerialseg.maps.mapping import read_unit, unit_tiles
from aerialseg.maps.rasters import draw_ortho
from aerialseg.model import make_model, save_model


def large_ortho(path: Path, side: int) -> None:
    "A drawn place of 400 m at 0.1 m, and its mirror images, side by side."
    draw_ortho(path.with_name("one.tif"), size_m=400, gsd_m=.1, seed=2, sports=("football_field", "tennis_court"))
    with rasterio.open(path.with_name("one.tif")) as ds: x, profile = ds.read([1, 2, 3]), ds.profile
    n = x.shape[1]
    with rasterio.open(path, "w", **profile | dict(width=side, height=side, count=3, photometric="ycbcr", compress="jpeg", jpeg_quality=90,
                                                   blockxsize=512, blockysize=512, interleave="pixel", alpha=None)) as ds:
        for i in range(0, side, n):
            for j in range(0, side, n):
                part = x[:, ::-1 if i // n % 2 else 1, ::-1 if j // n % 2 else 1][:, :side - i, :side - j]
                ds.write(part, window=rasterio.windows.Window(j, i, part.shape[2], part.shape[1]))


def untrained(folder: Path) -> Path:
    run = create_run(folder, make_recipe("demo"))
    r = run.recipe
    save_model(make_model(r.arch, r.encoder, "none", LANDCOVER12.n_classes, r.decoder_channels), run / "model", LANDCOVER12, r)
    return run.folder


def sample_tiles(task: Task, most: int = 64) -> list:
    "Pictures of tiles from all over the map."
    units, t = task.job.units, task.job.tile
    chosen = units[::max(1, len(units) // most)][:most]
    return [read_unit(task.job, *u)[0][:t, :t] for u in chosen]

def now() -> np.ndarray: # (2,)
    "Seconds by the clock, and of all cores together, which other people's work on the machine does not change."
    return np.array([time.perf_counter(), time.process_time()])

def network_alone(task: Task, pictures: list) -> np.ndarray: # (2,)
    "Seconds that the network takes for a tile when nothing else is done."
    task.answer(pictures[:1])
    start = now()
    for k in range(0, len(pictures), task.batch): task.answer(pictures[k:k + task.batch])
    return (now() - start) / len(pictures)

def measure(run: Path, path: Path, out: Path, pauses: int = 12) -> dict:
    """One map, which pauses now and then while the network alone answers some of its tiles, since a machine's speed drifts in minutes;
    the seconds of the polygons, beside which everything else is written."""
    outlining, alone, paused, asked = np.zeros(2), [], np.zeros(2), {}
    def make_polygons(*args):
        nonlocal outlining
        here = lambda: np.array([time.perf_counter(), time.thread_time()])      # the other core copies layers meanwhile
        start = here()
        table = polygons.make_polygons(*args)
        outlining = here() - start
        return table
    def compute(task, units):
        nonlocal paused
        pictures, every = sample_tiles(task), max(1, len(units) // pauses)
        network_alone(task, pictures[:8])
        asked.update(tiles=sum(len(unit_tiles(task.job, *u)) for u in units), start=now())
        for k, found in enumerate(jobs.compute_here(task, units)):
            yield found
            if k % every == every // 2:
                start = now()
                time.sleep(.5)                                                  # until the last unit is written and the next one read
                alone.append(network_alone(task, pictures[len(alone) % 4::4]))
                paused += now() - start
    jobs.make_polygons = make_polygons
    jobs.map_raster(run, str(path), out, path.stem, MapOptions(gsd_m=.1), compute)
    seconds, memory = now() - asked["start"] - outlining - paused, own_memory("VmHWM") / 2**20
    a_tile, tiles = np.array(alone), asked["tiles"]
    ratios = seconds[0] / tiles / a_tile[:, 0]
    with rasterio.open(path) as ds: megapixels = ds.height * ds.width / 1e6
    return dict(megapixels=megapixels, tiles=tiles, seconds=seconds[0], ratio=seconds[0] / tiles / a_tile[:, 0].mean(), ratio_min=ratios.min(),
                ratio_max=ratios.max(), pauses=len(alone), ratio_of_core_seconds=seconds[1] / tiles / a_tile[:, 1].mean(),
                seconds_a_megapixel=seconds[0] / megapixels, polygon_seconds=outlining[0],
                ratio_with_polygons=(seconds + outlining)[0] / tiles / a_tile[:, 0].mean(), peak_memory_mb=memory,
                threads=torch.get_num_threads(), load=os.getloadavg()[0])


if __name__ == "__main__":
    if len(sys.argv) > 3:                       # the measurement, in a process of its own: memory is counted from its start
        pd.DataFrame([measure(*map(Path, sys.argv[1:4]))]).to_csv(Path(sys.argv[3]) / "row.csv", index=False)
        sys.exit()
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        run = Path(sys.argv[1]) if len(sys.argv) > 1 and Path(sys.argv[1]).exists() else untrained(tmp / "run")
        large_ortho(tmp / "large.tif", int(sys.argv[2]) if len(sys.argv) > 2 else 20_000)
        subprocess.run([sys.executable, __file__, str(run), str(tmp / "large.tif"), str(tmp / "out")], check=True)
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        table = pd.read_csv(tmp / "out/row.csv").assign(commit=commit).round(3)
        table.to_csv(Path(__file__).with_suffix(".csv"), index=False)
        print(table.T.to_string(header=False))
