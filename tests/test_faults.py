"""What a run survives: being killed anywhere, signals, a full disk, a second run of the same name, a loader that dies.

`test_killed_everywhere` is one run that is killed at every point of `KILLS`, each time resumed to be killed at the next,
and must end with the files of a run that was never stopped."""
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest

HERE = Path(__file__).parent
COMMAND = str(Path(sys.executable).parent / "aerialseg")
SMALL = ["epochs=3", "epoch_images=32", "height=64", "width=64", "flights=4", "frames=3", "scene_height=64", "scene_width=80",
         "workers=1", "device=cpu", "tta=flip"]
TIMES = ["seconds", "images_per_s", "peak_memory_mb"]
WORK = {  # the series' work, without its prose: what each notebook does for a run
    "01_scenes": "from aerialseg.scenes import scenes_for\nscenes_for(RUN)",
    "04_dataset": "from aerialseg.dataset import make_split\nmake_split(RUN)",
    "08_training": "from aerialseg.training import train\ntrain(RUN)",
    "09_evaluation": "from aerialseg.evaluation import evaluate\nev = evaluate(RUN)",
    "09_figures": "import matplotlib.pyplot as plt, pandas as pd\nfrom aerialseg.viz import save_figure\n"
                  "save_figure(pd.read_csv(RUN / 'history.csv').plot(x='epoch', y='miou').figure, RUN.figure('eval_toy'))",
    "10_submission": "from aerialseg.submission import check_submission, submission_folder, write_submission\n"
                     "check_submission(write_submission(RUN), submission_folder(RUN))",
}


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    "The notebooks of WORK in a folder."
    folder = tmp_path_factory.mktemp("nbs")
    for name, code in WORK.items():
        cells = [nbformat.v4.new_code_cell('run = ""', metadata={"tags": ["parameters"]}),
                 nbformat.v4.new_code_cell("from aerialseg.core import open_run\nRUN = open_run(run)"), nbformat.v4.new_code_cell(code)]
        kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "python3"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / f"{name}.ipynb")
    return folder


def start(cwd, notebooks, *more, fault="", settings=SMALL, alone=""):
    "The real command, with a fault to come; it kills all processes, or `alone` the one it happens in."
    path = os.pathsep.join(filter(None, [str(HERE / "faults"), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": path, "FAULT": fault, "FAULT_ALONE": alone, "OMP_NUM_THREADS": "1"}
    env.pop("FAULT_ROOT", None)
    sets = [x for s in settings for x in ("--set", s)]
    return subprocess.Popen([COMMAND, "run", "--profile", "tiny", "--notebooks", str(notebooks), *sets, *more], cwd=cwd, env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process, timeout=120):
    "Its exit code and all it said."
    said = process.communicate(timeout=timeout)
    return process.returncode, said[0] + said[1]


@pytest.fixture(scope="session")
def whole(work, tmp_path_factory):
    "A run that nothing stopped."
    where = tmp_path_factory.mktemp("whole")
    code, said = end(start(where, work))
    assert code == 0, said[-3000:]
    return where


def contents(where, run="runs/tiny"):
    "What must be equal: name -> hash of every file of run and data; times left out, checkpoints by their tensors."
    import torch
    found = {}
    shown = lambda p, folder: p.is_file() and not any(part.startswith(".") for part in p.relative_to(folder).parts)
    for path in sorted(p for folder in (where / run, where / "data") for p in folder.rglob("*") if shown(p, folder)):
        name, digest = path.relative_to(where).as_posix().replace(run, "run"), hashlib.sha256()
        if path.suffix in (".ipynb", ".html") or path.name in ("done.json", "manifest.json", "data_files.csv"): digest.update(b"")
        elif "tensorboard" in name: continue
        elif path.name == "history.csv": digest.update(pd.read_csv(path).drop(columns=TIMES).to_csv().encode())
        elif path.name == "last.pt":
            state = torch.load(path, weights_only=True)
            for row in state["history"]:
                for k in TIMES: row.pop(k)
            flat = torch.utils._pytree.tree_flatten_with_path(state)[0]
            for key, v in flat: digest.update(str(key).encode() + (v.cpu().numpy().tobytes() if hasattr(v, "cpu") else repr(v).encode()))
        else: digest.update(path.read_bytes())
        found[name] = digest.hexdigest()
    return found


before = lambda name: rf"^os.rename \S+ \S*{name}$"                     # the file is written, but not in place
after = lambda name: rf"^os.remove \S*/\.{name}\.\d+\.tmp"              # second time: the file has just got its name
KILLS = [  # (n-th event, seconds later, event), in the order of a run
    (1, 0, before("/recipe.json")), (2, 0, after("recipe.json")), (1, 0, before("/manifest.json")),
    # scenes
    (1, 0, r"^open \S+/imgs/\d+\.jpg w"), (7, 0, r"^open \S+/masks/\d+\.png w"), (1, 0, before("/classes.csv")),
    (1, 0, before("-seed0")), (2, 0, after(r"4x3\S+")), (1, 0, before("/01_scenes.ipynb")), (1, 0, before("/data_files.csv")),
    (1, 0, before("/done.json")),
    # audit and split
    (5, 0, r"^open \S+/masks/\d+\.png r"), (1, 0, before("/audit.json")), (1, 0, before("/split.csv")), (2, 0, after("split.csv")),
    (2, 0, after("done.json")),
    # training: first epoch
    (1, .2, r"^open \S+events.out"), (1, 0, r"^open \S+/\.model\S+/config.json w"), (1, 0, before("/model/model.safetensors")),
    (1, 0, before("/model/config.json")), (1, 0, before("/model/aerialseg.json")), (1, .03, after("last.pt")),
    (1, 0, before("/last.pt")), (2, 0, after("last.pt")),
    # second and third epoch: `history.csv` is also written when training is taken up again
    (1, 0, before("/history.csv")), (1, .2, before("/history.csv")), (2, 0, before("/history.csv")), (1, .3, before("/history.csv")),
    (1, 0, before("/last.pt")), (2, 0, after("last.pt")), (1, 0, before("/curve_loss.png")), (1, 0, before("/08_training.ipynb")),
    # evaluation
    (2, 0, r"^open \S+/masks/\d+\.png r"), (1, 0, before("/counts.npz")), (1, 0, before("/metrics.json")), (1, 0, before("/postprocess.json")),
    (1, 0, before("/gallery.npz")), (2, 0, after("gallery.npz")),
    (1, 0, before("/09_evaluation.ipynb")),
    (1, 0, before("/eval_toy.png")),
    # submission, manifest (written at every start, too), report
    (2, 0, r"^open \S+/imgs/\d+\.jpg r"), (1, 0, before("/submission.csv")), (2, 0, after("submission.csv")), (1, 0, before("/done.json")),
    (2, 0, before("/manifest.json")), (4, 0, after("manifest.json")), (1, 0, before("/report.html")), (2, 0, after("report.html")),
]


def test_killed_everywhere(whole, work, tmp_path):
    begin = time.perf_counter()
    for n, seconds, event in KILLS:
        code, said = end(start(tmp_path, work, "--resume", fault=f"{n}|{seconds}|{event}"))
        assert code == -signal.SIGKILL, f"not killed at {n}. {event}: {said[-3000:]}"
        print(f"{time.perf_counter() - begin:6.1f} s  killed at {n}. {event}")
    code, said = end(start(tmp_path, work, "--resume"))
    assert code == 0, said[-3000:]
    assert contents(tmp_path) == contents(whole)
    assert not [p for p in tmp_path.rglob(".*") if ".tmp" in p.name], "a kill's leftovers were not swept"


def wait_for(what, seconds=60):
    "Until `what()` is true."
    until = time.time() + seconds
    while not (found := what()):
        assert time.time() < until, "it did not come"
        time.sleep(.05)
    return found


def family(process):
    "The command's kernels and loader workers."
    return psutil.Process(process.pid).children(recursive=True)


def in_training(process, where):
    "Whether the first epoch has begun, in a kernel with a loader worker."
    return list(where.glob("runs/tiny/tensorboard/events*")) and len(family(process)) > 1


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_everything_and_lose_nothing(whole, work, tmp_path, number, code):
    process = start(tmp_path, work, settings=[*SMALL, "epoch_images=3200"])       # an epoch that would last minutes
    wait_for(lambda: in_training(process, tmp_path))
    children, begin = family(process), time.perf_counter()
    process.send_signal(number)
    got, said = end(process, 30)
    assert got == code and said.rstrip().endswith("aerialseg: stopped; `--resume` goes on from here") and "Traceback" not in said, said
    assert time.perf_counter() - begin < 10 and not [p for p in children if p.is_running()]
    assert (tmp_path / "runs/tiny/split.csv").exists()
    code, said = end(start(tmp_path, work, "--resume"))
    assert code == 2 and "epoch_images" in said                                   # resumable, with its own recipe


def test_kernels_end_with_a_killed_command(work, tmp_path):
    process = start(tmp_path, work, settings=[*SMALL, "epoch_images=3200"])
    wait_for(lambda: in_training(process, tmp_path))
    children = family(process)
    process.kill()
    wait_for(lambda: not [p for p in children if p.is_running() and p.status() != "zombie"], 15)
    process.communicate()


def test_two_runs_of_one_name(whole, work, tmp_path):
    first = start(tmp_path, work)
    wait_for(lambda: (tmp_path / "runs/tiny/recipe.json").exists())
    code, said = end(start(tmp_path, work, "--resume"))
    assert code == 2 and "another process is at work on runs/tiny" in said and "Traceback" not in said
    # another name wants the same scenes at the same time; and without loader processes it must find the same
    other = start(tmp_path, work, "--name", "other", settings=[s for s in SMALL if "workers" not in s] + ["workers=0"])
    assert [end(first)[0], end(other)[0]] == [0, 0]
    names = {"run/recipe.json", "run/model/aerialseg.json"}       # hold the setting
    known = contents(whole)
    assert {k: v for k, v in contents(tmp_path).items() if "other" not in k} == known
    alone = contents(tmp_path, "runs/other")
    assert known.keys() == alone.keys() and {k for k, v in known.items() if alone[k] != v} == names


@pytest.fixture
def copy(whole, tmp_path):
    "A copy of the finished run to harm; copied times keep the data's hashes valid."
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_verify_finds_the_one_changed_file(copy, work, aerialseg):
    submission = copy / "runs/tiny/submission.csv"
    submission.write_text(re.sub(r"(_\d+),\d[\d ]+$", r"\1,", submission.read_text(), count=1, flags=re.M))    # one row emptied
    done = aerialseg("verify", "runs/tiny", "--keep", "--notebooks", work, cwd=copy)
    verdicts = dict(re.findall(r"^(\w+) +(equal|DIFFERENT)", done.stdout, re.M))
    assert done.returncode == 1, done.stdout + done.stderr
    assert verdicts == dict.fromkeys(["split", "history", "weights", "counts", "metrics"], "equal") | {"submission": "DIFFERENT"}
    beside = aerialseg("compare", "runs/tiny", "runs/tiny.again", cwd=copy)
    assert beside.returncode == 0 and not re.search(r"^(recipe|data|packages|machine)", beside.stdout, re.M), beside.stdout
    assert len(re.findall(r"difference \+0.0000, (95 % interval \+0.0000 to \+0.0000|no interval: all in one group); 3 frames", beside.stdout)) == 2


def test_resuming_on_other_data_or_with_another_recipe_is_refused(copy, work):
    import json
    victim = sorted(copy.glob("data/scenes/*/masks/masks/*.png"))[0]
    kept = victim.read_bytes()
    victim.write_bytes(kept + b" ")
    code, said = end(start(copy, work, "--resume"))
    assert code == 2 and victim.name in said and "put them back" in said and "Traceback" not in said
    victim.write_bytes(kept)
    recipe, manifest = copy / "runs/tiny/recipe.json", copy / "runs/tiny/manifest.json"
    recipe.write_text(recipe.read_text().replace('"seed": 0', '"seed": 1'))
    code, said = end(start(copy, work, "--resume", "--set", "seed=1"))
    assert code == 2 and "recipe.json" in said and "seed" in said
    recipe.write_text(recipe.read_text().replace('"seed": 1', '"seed": 0'))
    old = json.loads(manifest.read_text())
    old["packages"]["numpy"], old["machine"]["threads"] = "0.9", 77
    manifest.write_text(json.dumps(old))
    code, said = end(start(copy, work, "--resume"))
    assert code == 0 and "note: packages.numpy was 0.9" in said and "note: machine.threads was 77" in said
    changed = {line.split()[0] for line in json.loads(manifest.read_text())["changed"]}
    assert {c for c in changed if not c.startswith("code.")} == {"packages.numpy", "machine.threads"}    # the code may be worked on meanwhile


def test_a_dead_loader_process_is_named(copy, work, tmp_path):
    split = pd.read_csv(copy / "runs/tiny/split.csv", dtype=str)
    frame = split.ImageID[split.split == "train"].iloc[-1]                        # read by nobody but the loader's worker
    (copy / "runs/tiny/checkpoint/last.pt").unlink()
    done = copy / "runs/tiny/notebooks/done.json"
    done.write_text(re.sub(r'"08_training": \{[^}]+\},', "", done.read_text()))
    code, said = end(start(copy, work, "--resume", fault=rf"1|0|^open \S+/imgs/{frame}.jpg r", alone="yes"))
    assert code == 2 and "Traceback" not in said
    assert f"{frame}.jpg" in said.splitlines()[-1] and "a loader process died" in said and "--resume" in said


def test_a_dead_notebook_process_is_named(copy, work, tmp_path):
    done = copy / "runs/tiny/notebooks/done.json"
    done.write_text(re.sub(r'"04_dataset": \{[^}]+\},', "", done.read_text()))
    kept = contents(copy)
    code, said = end(start(copy, work, "--resume", fault=f"1|0|{before('/audit.json')}", alone="yes"))
    assert code == 2 and "Traceback" not in said and "04_dataset.ipynb was killed" in said.splitlines()[-1]
    assert contents(copy) == kept


@pytest.fixture
def small_disk(tmp_path):
    "A file system of its own."
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=460m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("this machine does not let us mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place, left_kb):
    "Leave so much room; 0: all of it."
    with open(place / "filler", "wb") as f:
        if left_kb: os.posix_fallocate(f.fileno(), 0, shutil.disk_usage(place).free - left_kb * 1024)


def test_a_full_disk_loses_nothing(whole, work, small_disk):
    code, said = end(start(small_disk, work, fault=f"2|0|{after('last.pt')}"))                 # one epoch is safe
    assert code == -signal.SIGKILL, said
    kept = contents(small_disk)
    del kept["run/model/model.safetensors"]             # may be a better one by then: it is renamed before the checkpoint
    for left_kb in (30_000, 200):           # too little for a checkpoint; hardly anything
        fill(small_disk, left_kb)
        code, said = end(start(small_disk, work, "--resume"))
        assert code == 2 and "Traceback" not in said and "the disk is full" in said.splitlines()[-1], said[-2000:]
        assert kept.items() <= contents(small_disk).items()
    fill(small_disk, 0)
    code, said = end(start(small_disk, work, "--resume"))
    assert code == 0 and contents(small_disk) == contents(whole)
    fill(small_disk, 100_000)
    code, said = end(start(small_disk, work, "--overwrite"))
    assert code == 2 and "300 MB" in said and contents(small_disk) == contents(whole)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, said = end(start(small_disk, work, "--resume"))
    assert code == 2 and "read-only" in said.splitlines()[-1] and "Traceback" not in said
    assert contents(small_disk) == contents(whole)


def test_an_overwritten_run_waits_for_the_new_one(copy, work, whole):
    runs = copy / "runs"
    for fault in (before("/done.json"), before("/recipe.json")):                    # twice, to tempt it
        code, said = end(start(copy, work, "--overwrite", fault=f"1|0|{fault}"))
        assert code == -signal.SIGKILL, said
        assert contents(copy, "runs/.tiny.old") == contents(whole)
