"""Prediction: PyTorch against ONNX Runtime, the whole path against its network alone, labels without the big array.

    python bench/inference.py [THREADS]        writes bench/inference.csv; one thread unless told otherwise

Untrained networks: what they answer does not matter for the time. Images a second are 1000 / ours_ms.
"""
import os
import sys
THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else 1
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"): os.environ[name] = str(THREADS)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from aerialseg.core import make_recipe
from aerialseg.engine import with_engine
from aerialseg.evaluation import final_predict
from aerialseg.model import make_model
from aerialseg.prediction import TTA, label_map, predict_probs
from aerialseg.scenes import make_scenes
from pairs import alone, pair, save

torch.set_num_threads(THREADS)
cv2.setNumThreads(THREADS)
CLASSES = 12


def both(recipe) -> tuple: # (PyTorch, ONNX Runtime)
    "The recipe's network, computed by either engine."
    torch.manual_seed(0)
    build = lambda: make_model(recipe.arch, recipe.encoder, "none", CLASSES, recipe.decoder_channels)
    model = build()
    twin = build()
    twin.load_state_dict(model.state_dict())
    return with_engine(model, replace(recipe, engine="torch"), "cpu"), with_engine(twin, replace(recipe, engine="onnx"), "cpu")


def network(model, height: int, width: int, times: int = 1):
    "A function that runs the network alone."
    xb = torch.randn(1, 3, height, width)

    def run():
        with torch.inference_mode():
            for _ in range(times): model(xb)
    return run


def main() -> None:
    demo, source = make_recipe("demo"), make_recipe("source")
    with tempfile.TemporaryDirectory() as tmp:
        folder = make_scenes(Path(tmp) / "s", flights=3, frames=4, height=384, width=512)
        frames = [folder.image(i) for i in folder.train]
    rows, frame, big = [], frames[0], cv2.resize(frames[0], (1280, 720))
    for name, recipe in (("SegFormer decoder, lite0 (demo)", demo), ("U-Net ResNet-50 (source)", source)):
        pytorch, onnx = both(recipe)
        few = 3 if recipe is source else 9
        rows.append(pair(f"network alone, {name}, 384×512: ONNX Runtime / PyTorch", network(onnx, 384, 512), network(pytorch, 384, 512), repeats=few))
        cases = [(frame, recipe, "none"), (big, replace(recipe, view="resize", height=384, width=512), "none")]
        if recipe is demo: cases.insert(1, (frame, recipe, "d4"))
        for image, r, tta in cases:
            r, what = replace(r, tta=tta), f"{name}, {image.shape[0]}×{image.shape[1]}, TTA {tta}"
            predict = lambda model: final_predict(model, image, r, {})
            usual = lambda: predict_probs(pytorch, image, r).argmax(0).astype(np.uint8)
            rows.append(pair(f"image to labels, {what}: ONNX Runtime / PyTorch and argmax", lambda: predict(onnx), usual, repeats=few))
            rows.append(pair(f"gap to the network, {what}: network alone / image to labels", network(onnx, 384, 512, len(TTA[tta])), lambda: predict(onnx), repeats=few))
        same = [np.mean(final_predict(pytorch, f, replace(recipe, tta="none"), {}) == final_predict(onnx, f, replace(recipe, tta="none"), {})) for f in frames[:4]]
        rows.append(alone(f"pixels with the same label, {name}, least of {len(same)} frames", 100 * min(same), "%", "≥ 99.99 %"))
    probs = torch.randn(CLASSES, 384, 512).softmax(0).numpy()
    usual = lambda: np.stack([cv2.resize(p, (1280, 720)) for p in probs]).argmax(0).astype(np.uint8)
    assert np.array_equal(usual(), label_map(probs, 720, 1280))
    rows.append(pair("12 maps of 384×512 to labels of 720×1280: class by class / argmax", lambda: label_map(probs, 720, 1280), usual))
    for row in rows: row["threads"] = THREADS
    save(rows, "inference")


if __name__ == "__main__": main()
