"Training on two processes (gloo): the same global batch, every frame judged once, one writer, and a death that costs an epoch."
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from aerialseg.core import create_run, load_table, make_recipe
from aerialseg.dataset import make_split
from aerialseg.scenes import scenes_for

BIN = Path(sys.executable).parent
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def begun(folder, **settings):
    "A run that is ready for training."
    settings = {"epochs": 3, "epoch_images": 32, "height": 64, "width": 64, "workers": 0, "device": "cpu", "valid_every": 3} | settings
    run = create_run(folder, make_recipe("tiny", **settings))
    scenes_for(run)
    make_split(run)
    return run


def on_two(*command, wait=240):
    "Run a command as two processes."
    started = subprocess.Popen([str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2", *map(str, command)], env=ENV,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return started if not wait else (started.communicate(timeout=wait)[0], started.returncode)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "The same recipe, trained by one process and by two."
    where = tmp_path_factory.mktemp("devices") / "runs"
    one, two = begun(where / "one"), begun(where / "two")
    alone = subprocess.run([str(BIN / "aerialseg"), "train", str(one.folder)], env=ENV, capture_output=True, text=True, timeout=240)
    assert alone.returncode == 0, alone.stderr[-2000:]
    said, code = on_two("--no-python", BIN / "aerialseg", "train", two.folder)
    assert code == 0, said[-6000:]
    assert said.count("3 epochs, the last mIoU") == 1      # one speaks
    return one, two


def test_two_processes_learn_what_one_learns(trained):
    "Same global batch: only batch normalisation, soft Dice and dropout look at a process's own half."
    a, b = (load_table(run / "history.csv") for run in trained)
    assert len(a) == len(b) == 3
    assert (a.train_loss - b.train_loss).abs().max() < 0.35 and abs(a.valid_loss.iloc[-1] - b.valid_loss.iloc[-1]) < 0.15
    assert (a.lr == b.lr).all()                            # as many steps


JUDGE = """
import sys
from pathlib import Path
import numpy as np
from aerialseg.core import Run, load_recipe
from aerialseg.training import Trainer, load_checkpoint, validate_together
run = Run(Path(sys.argv[1]), load_recipe(Path(sys.argv[1]) / "recipe.json"))
t = Trainer(run)
load_checkpoint(t)
counts, loss = validate_together(t)
if t.accelerator.is_main_process: np.savez(sys.argv[2], counts=counts, loss=loss)
t.accelerator.wait_for_everyone()
t.accelerator.end_training()       # as training ends: a process that leaves with gloo's threads running may abort
"""


def test_every_frame_is_counted_once(trained, tmp_path):
    (tmp_path / "judge.py").write_text(JUDGE)
    subprocess.run([sys.executable, tmp_path / "judge.py", trained[0].folder, tmp_path / "one.npz"], env=ENV, check=True, capture_output=True, timeout=120)
    said, code = on_two(tmp_path / "judge.py", trained[0].folder, tmp_path / "two.npz")
    assert code == 0, said[-6000:]
    one, two = np.load(tmp_path / "one.npz"), np.load(tmp_path / "two.npz")
    assert np.array_equal(one["counts"], two["counts"]) and len(one["counts"]) == 8
    assert abs(one["loss"] - two["loss"]) < 1e-6


def test_a_batch_that_can_not_be_shared_is_refused(tmp_path):
    run = begun(tmp_path / "runs/odd", batch=3)
    said, code = on_two("--no-python", BIN / "aerialseg", "train", run.folder)
    assert code != 0 and "batch=3 can't be shared by 2 processes" in said


def test_a_dead_process_ends_the_job_and_leaves_a_checkpoint(tmp_path):
    run = begun(tmp_path / "runs/dies", epochs=40, valid_every=40)
    job = on_two("--no-python", BIN / "aerialseg", "train", run.folder, wait=0)
    deadline = time.monotonic() + 120
    while not (run / "checkpoint/last.pt").exists() and time.monotonic() < deadline and job.poll() is None: time.sleep(.05)
    workers = [p for p in psutil.Process(job.pid).children(recursive=True) if "train" in p.cmdline()]
    assert len(workers) == 2
    os.kill(workers[-1].pid, signal.SIGKILL)
    said = job.communicate(timeout=90)[0]
    assert job.returncode != 0 and not any(p.is_running() for p in workers), said[-1000:]
    before = len(load_table(run / "history.csv"))
    assert 1 <= before < 40
    from dataclasses import replace
    from aerialseg.core import Run
    from aerialseg.training import Trainer, load_checkpoint
    t = Trainer(Run(run.folder, replace(run.recipe)))
    assert load_checkpoint(t) and t.epoch >= before                   # it goes on from there
