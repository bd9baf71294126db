"""Everything around the network, against the usual way of doing it, one thread, in seconds of a core.

    python bench/around.py        writes bench/around.csv
"""
import os
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"): os.environ[name] = "1"

import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from pycocotools import mask as coco

from aerialseg.dataset import audit
from aerialseg.folder import open_folder
from aerialseg.learning import segmentation_loss
from aerialseg.metrics import bootstrap, count_table, mean_dice, miou
from aerialseg.rle import label_map_to_rles
from aerialseg.submission import write_rows
from pairs import alone, pair, save, seconds

pair, seconds = partial(pair, clock=time.process_time), partial(seconds, clock=time.process_time)

torch.set_num_threads(1)
cv2.setNumThreads(1)
CLASSES = 12


def label_map(height=720, width=1280, seed=0, noise=.0005) -> np.ndarray: # (H,W) uint8
    "Blobs of twelve classes; the more noise, the more ragged their borders."
    rng = np.random.default_rng(seed)
    fields = [cv2.GaussianBlur(rng.normal(size=(height // 4, width // 4)).astype(np.float32), (0, 0), s) * s
              for s in rng.uniform(8, 40, CLASSES)]
    small = np.stack([cv2.resize(f, (width, height)) for f in fields]) + noise * rng.normal(size=(CLASSES, height, width))
    return small.argmax(0).astype(np.uint8)


def usual_rle(mask: np.ndarray) -> str: # (H,W) 0/1
    "What is copied from kernel to kernel: pad, compare neighbours, subtract."
    pixels = np.concatenate([[0], mask.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


def coco_rles(labels: np.ndarray) -> list:
    "Twelve masks in pycocotools' own (compressed, column-major) form."
    return coco.encode(np.asfortranarray(np.stack([labels == c for c in range(CLASSES)], -1), dtype=np.uint8))


def small_folder(root: Path, frames: int, test: int):
    "A folder of `frames` 1280×720 pictures: a few files, hard-linked, as many times as needed."
    for sub in ("imgs/imgs", "masks/masks", "kinds"): (root / sub).mkdir(parents=True)
    rng, kinds = np.random.default_rng(0), []
    for k in range(6):
        labels = label_map(seed=k)
        picture = cv2.GaussianBlur((labels[..., None] * 18 + rng.integers(0, 40, (*labels.shape, 3))).clip(0, 255).astype(np.uint8), (0, 0), 1)
        kinds.append((root / f"kinds/{k}.jpg", root / f"kinds/{k}.png"))
        Image.fromarray(picture).save(kinds[-1][0], quality=90)
        Image.fromarray(labels).save(kinds[-1][1])
    for n in range(frames):
        os.link(kinds[n % 6][0], root / f"imgs/imgs/{n}.jpg")
        if n >= test: os.link(kinds[n % 6][1], root / f"masks/masks/{n}.png")
    for name, ids in (("train", range(test, frames)), ("test", range(test))):
        (root / f"{name}.csv").write_text("\n".join(["ImageID", *map(str, ids)]) + "\n")
    return open_folder(root)


def main() -> None:
    rows, labels, other = [], label_map(), label_map(seed=1)
    assert label_map_to_rles(labels, CLASSES) == [usual_rle(labels == c) for c in range(CLASSES)]
    for map_ in (labels, label_map(noise=.02)):
        runs = f"{(np.diff(map_.ravel().astype(int)) != 0).sum() + 1:,} runs"
        rows.append(pair(f"RLE, 720×1280, 12 classes, {runs} / one mask at a time, numpy", lambda: label_map_to_rles(map_, CLASSES),
                         lambda: [usual_rle(map_ == c) for c in range(CLASSES)], 10))
        rows.append(pair(f"RLE, 720×1280, 12 classes, {runs} / pycocotools", lambda: label_map_to_rles(map_, CLASSES), lambda: coco_rles(map_), 1))
    p, m = torch.from_numpy(other).long()[None], torch.from_numpy(labels).long()[None]
    tp, fp, fn, _ = smp.metrics.get_stats(p, m, mode="multiclass", num_classes=CLASSES)
    assert np.array_equal(count_table(other, labels, CLASSES), np.stack([x[0].numpy() for x in (tp, fp, fn)], -1))
    rows.append(pair("counts of a 720×1280 map / smp.metrics.get_stats", lambda: count_table(other, labels, CLASSES),
                     lambda: smp.metrics.get_stats(p, m, mode="multiclass", num_classes=CLASSES), 5))
    logits = torch.randn(8, CLASSES, 192, 192, requires_grad=True)
    mask = torch.randint(0, CLASSES, (8, 192, 192))
    dice = smp.losses.DiceLoss("multiclass", ignore_index=255)
    rows.append(pair("CE + Dice, 8×192×192, backward too / torch's and SMP's", lambda: segmentation_loss(logits, mask).backward(),
                     lambda: (torch.nn.functional.cross_entropy(logits, mask, ignore_index=255) + dice(logits, mask)).backward()))
    counts = np.random.default_rng(0).integers(0, 10_000, (648, CLASSES, 3))
    groups = np.repeat(np.arange(36), 18)
    for name, score in (("mean Dice", mean_dice), ("mIoU", miou)):
        rows.append(alone(f"bootstrap of {name}, 648 frames in 36 groups, 1,000 samples", seconds(lambda: bootstrap(counts, groups, score)), "s", "≤ 1 s"))
    with tempfile.TemporaryDirectory() as tmp:
        folder = small_folder(Path(tmp) / "data", 3269, 648)
        rows.append(alone("audit of 3,269 frames of 1280×720, one thread", seconds(lambda: audit(folder, threads=1)), "s", "≤ 60 s"))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        took = seconds(lambda: write_rows(Path(tmp) / "s.csv", folder, lambda image: labels))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rows.append(alone("writing 648 × 12 rows of 720×1280", took, "s", "–"))
        rows.append(alone("… added to the process's peak memory", (peak - before) / 2**10, "MB", "≤ 300 MB"))
    save(rows, "around")


if __name__ == "__main__": main()
