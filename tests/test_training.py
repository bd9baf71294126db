"Training: what needs a run on disk and is too long, or too destructive, for the notebook."
import json

import pytest
import torch

from aerialseg.core import AerialsegError, create_run, make_recipe
from aerialseg.dataset import make_split
from aerialseg.scenes import scenes_for
from aerialseg.training import Trainer, fit, train


def tiny_run(tmp_path, name="t", **settings):
    settings = {"epochs": 2, "epoch_images": 16, "height": 64, "width": 64, "valid_every": 2, "tta": "none"} | settings
    run = create_run(tmp_path / "runs" / name, make_recipe("tiny", device="cpu", **settings))
    scenes_for(run)
    make_split(run)
    return run


def weights(run): return torch.load(run / "checkpoint/last.pt", weights_only=True)["model"]


def test_same_weights_with_any_number_of_workers(tmp_path):
    a, b = (tiny_run(tmp_path, f"w{n}", workers=n) for n in (0, 2))
    train(a), train(b)
    assert all(torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values()))


def test_accumulated_steps_update_half_as_often(tmp_path):
    run = tiny_run(tmp_path, batch=4, accumulate=2, epochs=1)
    t = Trainer(run)
    fit(t)
    assert t.steps == 2 and t.scheduler.last_epoch == 2 and t.micro == 4


def test_patience_ends_the_run_and_keeps_the_best(tmp_path):
    run = tiny_run(tmp_path, epochs=6, valid_every=1, patience=1, lr=1e-8, ema=0.0, schedule="constant", weights="none")
    history = train(run)
    assert len(history) < 6
    assert (run / "model/model.safetensors").exists()


def test_non_finite_loss_names_the_frames(tmp_path):
    run = tiny_run(tmp_path)
    t = Trainer(run)
    with torch.no_grad(): next(t.model.parameters()).fill_(float("inf"))
    with pytest.raises(AerialsegError, match="nonfinite.json"): fit(t)
    saved = json.loads((run / "nonfinite.json").read_text())
    assert len(saved["ImageID"]) == run.recipe.batch and set(saved["ImageID"]) <= set(t.folder.train)
    assert not (run / "checkpoint/last.pt").exists()


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    run = tiny_run(tmp_path)
    (run / "checkpoint").mkdir()

    class Evil:
        def __reduce__(self): return (open, (str(tmp_path / "ran"), "w"))
    torch.save({"recipe": Evil()}, run / "checkpoint/last.pt")
    with pytest.raises(AerialsegError, match="last.pt"): train(run)
    assert not (tmp_path / "ran").exists()


def test_half_a_checkpoint_is_one_sentence(tmp_path):
    run = tiny_run(tmp_path)
    train(run)
    path = run / "checkpoint/last.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(AerialsegError, match="last.pt"): train(run)


OUT_OF_MEMORY = """
import os, resource, sys
from pathlib import Path
import psutil, torch
from tqdm import tqdm
torch.set_num_threads(1)
from aerialseg.core import Run, load_recipe
from aerialseg.steps import Trainer, gradients
from aerialseg.training import train_epoch
folder = Path(sys.argv[1])
t = Trainer(Run(folder, load_recipe(folder / "recipe.json")))
batch = next(iter(t.loader))
t.micro = 2
gradients(t, [{k: v[:4] for k, v in batch.items()}])      # everything that is allocated once is allocated now
t.optimizer.zero_grad()
t.micro = t.recipe.batch
room = psutil.Process().memory_info().vms + 400 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (room, room))
loss = train_epoch(t, tqdm(disable=True))
print("MICRO", t.micro, "LOSS", loss)
"""


def test_a_batch_that_does_not_fit_is_taken_in_pieces(tmp_path):
    "Real memory, really limited: 32 windows of 192×192 need more than a gigabyte, the process is given 400 MB."
    import re
    import subprocess
    import sys
    run = tiny_run(tmp_path, epochs=1, epoch_images=32, batch=32, height=192, width=192, valid_every=1, workers=0, ema=0.0)
    done = subprocess.run([sys.executable, "-c", OUT_OF_MEMORY, str(run.folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-6000:]
    micro = int(re.search(r"MICRO (\d+)", done.stdout)[1])
    assert 1 <= micro <= 16
    assert f"out of memory: from here on {micro} images at a time, still 32 a step" in done.stderr + done.stdout
