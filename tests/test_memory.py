"Memory: that a run with checkpointing is the same run, and that what was counted to fit does fit."
from dataclasses import replace

import pytest
import torch
from test_training import tiny_run, weights

from aerialseg.core import make_recipe
from aerialseg.footprint import GB, batch_line, largest_batch, step_bytes
from aerialseg.studies.memory import step_fits
from aerialseg.training import train


@pytest.mark.parametrize("settings", [{}, {"arch": "fpn", "decoder_channels": (64, 32), "batch": 4, "accumulate": 2}])
def test_a_run_with_checkpointing_is_the_same_run(tmp_path, settings):
    a, b = (tiny_run(tmp_path, f"c{c}", checkpointing=c, workers=0, **settings) for c in (False, True))
    first, second = train(a), train(b)
    assert a.recipe.fingerprint == b.recipe.fingerprint
    assert weights(a).keys() == weights(b).keys()
    assert all(torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values()))
    assert first.train_loss.equals(second.train_loss) and first.miou.equals(second.miou)


def test_the_largest_batch_is_the_largest_by_its_own_count():
    r = make_recipe("source", weights="none", arch="small_unet", height=64, width=64, device="cpu")
    b = largest_batch(r, 0.1)
    assert b > 1
    assert step_bytes(replace(r, batch=b))["peak"] <= 0.1 * GB < step_bytes(replace(r, batch=b + 1))["peak"]
    fixed, image = batch_line(r)
    assert abs(b - (0.1 * GB - fixed) / image) < 2


def test_what_was_counted_fits_a_process_with_a_tenth_to_spare_and_half_of_it_does_not_do():
    r = make_recipe("source", weights="none", encoder="resnet18", height=96, width=96, batch=8, device="cpu")
    peak = step_bytes(r)["peak"] / GB
    assert step_fits(r, 1.1 * peak + 0.03) and not step_fits(r, 0.5 * peak)
