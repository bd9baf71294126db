"The whole chain at the tiny profile, by the real command: run, look, resume, predict, check."
import json
import re
from pathlib import Path

import nbformat
import pytest

CONTRACT = ["recipe.json", "split.csv", "audit.json", "history.csv", "checkpoint/last.pt", "model/config.json",
            "model/model.safetensors", "counts.npz", "metrics.json", "gallery.npz", "submission.csv", "report.html", "manifest.json"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    "A whole tiny run."
    import os, subprocess, sys
    where = tmp_path_factory.mktemp("work")
    command = [str(Path(sys.executable).parent / "aerialseg"), "run", "--profile", "tiny"]
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=1500, env={**os.environ, "MPLBACKEND": "agg"})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return where, done


def test_every_file_of_the_run_folder_is_there(finished):
    where, done = finished
    run = where / "runs/tiny"
    assert [n for n in CONTRACT if not (run / n).exists()] == []
    assert len(list((run / "figures").glob("*.png"))) >= 10
    assert not list(run.rglob("*.tmp*")), "something was left half-written"
    assert "report.html" in done.stdout.splitlines()[-1]


def test_executed_notebooks_carry_the_run(finished):
    run = finished[0] / "runs/tiny"
    fingerprint = json.loads((run / "manifest.json").read_text())["fingerprint"]
    for path in sorted((run / "notebooks").glob("[0-9]*.ipynb")):
        text = str(nbformat.read(path, 4))
        if "injected-parameters" in text: assert fingerprint in text, path.name
        assert "\\r" not in text.replace("\\\\r", ""), f"{path.name} holds a progress bar's traces"


def test_scores_stand_beside_floors_and_intervals(finished):
    metrics = json.loads((finished[0] / "runs/tiny/metrics.json").read_text())
    for name in ("mean_dice", "miou"):
        score = metrics["scores"][name]
        assert 0 <= score["value"] <= 1 and score["definition"] and len(score["interval"]) == 2
    assert {"all_empty", "all_majority"} <= set(metrics["floors"])


def test_report_is_one_file(finished):
    html = (finished[0] / "runs/tiny/report.html").read_text()
    assert len(html) < 8e6 and "mIoU" in html
    assert not re.search(r'(src|href)="https?:', html)


def test_submission_passes_its_check(finished, aerialseg):
    where = finished[0]
    data = next((where / "data/scenes").iterdir())
    done = aerialseg("check", where / "runs/tiny/submission.csv", "--data", data, cwd=where)
    assert done.returncode == 0 and "valid" in done.stdout


def test_resume_has_nothing_to_do_and_a_second_run_is_refused(finished, aerialseg):
    where = finished[0]
    again = aerialseg("run", "--profile", "tiny", "--resume", cwd=where)
    assert again.returncode == 0 and "08_training" in again.stdout
    assert all("done before" in line for line in again.stdout.splitlines() if line.startswith("["))
    refused = aerialseg("run", "--profile", "tiny", cwd=where)
    assert refused.returncode == 2 and "--resume" in refused.stderr
    other = aerialseg("run", "--profile", "tiny", "--resume", "--set", "lr=0.1", cwd=where)
    assert other.returncode == 2 and "lr=" in other.stderr


def test_predict_writes_ids_and_an_overlay(finished, aerialseg):
    from aerialseg.folder import load_image, load_mask
    where = finished[0]
    frame = sorted(next((where / "data/scenes").iterdir()).glob("imgs/imgs/*.jpg"))[0]
    done = aerialseg("predict", "runs/tiny", frame, "--out", "masks", cwd=where)
    assert done.returncode == 0, done.stderr
    mask = load_mask(where / f"masks/{frame.stem}.png")
    assert mask.shape == load_image(frame).shape[:2] and mask.max() < 12
    assert load_image(where / f"masks/{frame.stem}_overlay.jpg").shape[2] == 3
