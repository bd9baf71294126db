"""Does the network wait for its data? Two questions, each a ratio.

    python bench/loader.py        writes bench/loader.csv

1. Items of the source's kind (1280×720 seen at 384×512, its augmentation), decoded each time against the cache: items a second, one thread.
2. An epoch of the demo's network with one loader process on one core and the network on the other, against the same
   steps on tensors that lie in memory.
"""
import os
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"): os.environ[name] = "1"

import tempfile
from pathlib import Path

import cv2
import torch

from aerialseg.augmentation import make_transform
from aerialseg.core import create_run, make_recipe
from aerialseg.dataset import make_split
from aerialseg.loading import SegmentationDataset
from aerialseg.scenes import make_scenes
from aerialseg.steps import Trainer, gradients, update
from pairs import pair, save

torch.set_num_threads(1)
cv2.setNumThreads(1)
FRAMES = 16


def items(folder, cache: Path | None, transform):
    "A function that makes one item of every frame."
    data = SegmentationDataset(folder, list(folder.train)[:FRAMES], make_recipe("source"), transform, cache=cache)
    counter = iter(range(10**9))
    return lambda: [data[(next(counter), k, -1)] for k in range(FRAMES)]


def epochs(where: Path):
    "Two functions: an epoch through the loader, and the same number of steps on batches in memory."
    recipe = make_recipe("demo", flights=6, frames=6, epoch_images=160, workers=1, device="cpu")
    run = create_run(where / "runs/demo", recipe)
    make_scenes(run.data, flights=6, frames=6, height=384, width=512)
    make_split(run)
    t = Trainer(run)
    kept = list(t.loader)

    def steps(batches):
        t.model.train()
        for batch in batches:
            gradients(t, [batch])
            update(t)
    t.scheduler = type("Still", (), {"step": lambda self: None})()
    return lambda: steps(t.loader), lambda: steps(kept)


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        folder = make_scenes(Path(tmp) / "hd", flights=3, frames=8, height=720, width=1280)
        source = make_transform(make_recipe("source"), train=True)
        rows.append(pair(f"{FRAMES} items 1280×720 → 384×512 from the cache / decoded each time, no augmentation",
                         items(folder, Path(tmp) / "cache", None), items(folder, None, None), 4))
        rows.append(pair(f"{FRAMES} items with the source's augmentation, from the cache / decoded each time",
                         items(folder, Path(tmp) / "cache", source), items(folder, None, source), 4))
        loader, memory = epochs(Path(tmp) / "e")
        rows.append(pair("20 steps of the demo on batches in memory / through the loader (aim: ratio ≤ 1.05)", memory, loader, 1.05, repeats=5))
    save(rows, "loader")


if __name__ == "__main__": main()
