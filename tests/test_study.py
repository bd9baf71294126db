"A study by the real command: killed and gone on with, listed, refused."
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from aerialseg.core import load_table
from aerialseg.study import question, studies

BIN = Path(sys.executable).parent


def test_a_killed_study_goes_on_where_it_was(aerialseg, tmp_path):
    out = tmp_path / "asked"
    command = [str(BIN / "aerialseg"), "study", "time_to_quality", "--size", "tiny", "--out", str(out)]
    killed = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (out / "study.csv").exists() and killed.poll() is None and time.monotonic() < deadline: time.sleep(.1)
    first = load_table(out / "study.csv")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    done = aerialseg(*command[1:])
    assert done.returncode == 0, done.stderr[-2000:]
    rows = load_table(out / "study.csv")
    assert len(first) == 1 and list(rows.arm) == ["source", "ours"] and rows.iloc[:1].equals(first)      # its seconds too: not made again
    assert (out / "26_time_to_quality.ipynb").exists() and set(load_table(out / "history.csv").arm) == {"source", "ours"}


def test_studies_are_listed_and_wrong_questions_refused(aerialseg):
    listed = aerialseg("study")
    assert listed.returncode == 0 and all(name in listed.stdout and question(path) in listed.stdout for name, path in studies().items())
    for args, words in ((["nope"], f"choose one of {', '.join(studies())}"), (["growth", "--processes", "2"], "one thing at a time"), (["growth", "--size", "huge"], "no size 'huge'")):
        done = aerialseg("study", *args)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
