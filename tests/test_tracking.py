"Trackers: what they are told in a real training, and that the training does not notice."
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from aerialseg.core import create_run, make_recipe
from aerialseg.dataset import make_split
from aerialseg.scenes import scenes_for
from aerialseg.training import Trainer, fit, load_checkpoint, train

SMALL = {"epochs": 3, "epoch_images": 16, "height": 64, "width": 64, "valid_every": 1, "tta": "none", "workers": 0, "flights": 4, "frames": 4,
         "scene_height": 64, "scene_width": 80}


def tiny_run(tmp_path, trackers, name="t", **settings):
    run = create_run(tmp_path / "runs" / name, make_recipe("tiny", device="cpu", trackers=trackers, **SMALL | settings))
    scenes_for(run)
    make_split(run)
    return run


def stop_after(run, epochs):
    "Train some epochs with trackers, and end without a word, as a kill does."
    from aerialseg.tracking import start_trackers
    t = Trainer(run)
    load_checkpoint(t)
    start_trackers(t)
    t.recipe = replace(t.recipe, epochs=epochs)
    fit(t)


def last(run): return torch.load(run / "checkpoint/last.pt", weights_only=True)


def test_the_training_does_not_notice_and_a_resumed_one_draws_each_point_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    told, untold = tiny_run(tmp_path, "tensorboard", "told"), tiny_run(tmp_path, "none", "untold")
    stop_after(told, 2)
    history = train(told)                                    # goes on with the third epoch
    train(untold)
    a, b = last(told), last(untold)
    assert all(torch.equal(a["model"][k], b["model"][k]) for k in a["model"]) and torch.equal(a["rng"], b["rng"])
    assert [h["miou"] for h in a["history"]] == [h["miou"] for h in b["history"]]
    assert not (untold / "tensorboard").exists() and not (told / "trackers.json").exists()
    events = EventAccumulator(str(told / "tensorboard"), size_guidance={"images": 0}).Reload()
    for column in history.columns:                           # every column, but where a class does not occur
        points = {e.step: e.value for e in events.Scalars(column)} if history[column].notna().any() else {}
        kept = history[column].dropna()
        assert list(points) == list(history.epoch[kept.index]) and np.allclose(list(points.values()), kept, rtol=1e-5), column
    assert events.Scalars("kept_miou")[-1].value == pytest.approx(history.miou.max())
    assert len(events.Tags()["images"]) == 3 and all(len(events.Images(n)) == 3 for n in events.Tags()["images"])


def test_mlflow_has_one_run_with_each_epoch_once(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tiny_run(tmp_path, "mlflow")
    stop_after(run, 1)
    mlflow.end_run()                                         # the next process would not know of it
    before = (run / "checkpoint/last.pt").read_bytes()
    stop_after(run, 2)
    mlflow.end_run()
    (run / "checkpoint/last.pt").write_bytes(before)         # killed before its checkpoint: the second epoch again
    history = train(run)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'runs/mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("aerialseg").experiment_id])
    assert len(found) == 1 and found[0].info.run_name == "t" and found[0].info.status == "FINISHED"
    assert found[0].data.params["encoder"] == run.recipe.encoder and found[0].data.metrics["kept_miou"] == pytest.approx(history.miou.max())
    assert [m.step for m in client.get_metric_history(found[0].info.run_id, "train_loss")] == [1, 2, 3]
    assert len(list((tmp_path / "runs/mlflow").rglob("*.png"))) == 9 and not (tmp_path / "mlruns").exists()


def test_wandb_writes_offline_and_is_taken_up_again(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tiny_run(tmp_path, "wandb")
    stop_after(run, 2)
    first = json.loads((run / "trackers.json").read_text())
    wandb.finish()
    train(run)
    assert json.loads((run / "trackers.json").read_text()) == first and len(pd.read_csv(run / "history.csv")) == 3
    assert list((run / "wandb").glob(f"offline-run-*-{first['wandb']}/*.wandb"))


@pytest.mark.parametrize("names, words", [("tensorbord", "must be one of none, tensorboard"), ("tensorboard,aim", "the package aim is not installed: pip install aim")])
def test_a_tracker_that_is_not_there_ends_a_run_before_it_starts(aerialseg, tmp_path, names, words):
    import importlib.util
    if "aim" in names and importlib.util.find_spec("aim"): pytest.skip("aim is installed here")
    done = aerialseg("run", "--profile", "tiny", "--set", f"trackers={names}")
    assert done.returncode == 2 and words in done.stderr and not list(tmp_path.iterdir()), done.stderr
