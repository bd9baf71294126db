"A folder of pictures by the real command: any number of processes, finished masks kept, one sentence for a broken picture."
import shutil

import pytest


@pytest.fixture(scope="module")
def untrained(scenes, tmp_path_factory):
    "A run folder with an untrained network."
    import torch
    from aerialseg.core import create_run, make_recipe
    from aerialseg.model import SmallUNet, save_model
    torch.manual_seed(0)
    run = create_run(tmp_path_factory.mktemp("work") / "run", make_recipe("tiny", arch="small_unet", tta="none"))
    save_model(SmallUNet(12), run / "model", scenes.taxonomy, run.recipe)
    return run.folder


def files(folder): return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_processes_make_the_same_masks_and_keep_finished_ones(aerialseg, untrained, scenes, tmp_path):
    imgs = scenes.root / "imgs/imgs"
    one = aerialseg("predict", untrained, imgs, "--out", "one")
    two = aerialseg("predict", untrained, imgs, "--out", "two", "--processes", 2)
    n = len(list(imgs.iterdir()))
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    assert f"{n} masks in two" in two.stdout and "kept" not in two.stdout
    assert files(tmp_path / "one") == files(tmp_path / "two") and len(files(tmp_path / "two")) == 2 * n
    sorted((tmp_path / "two").glob("*.png"))[1].unlink()
    again = aerialseg("predict", untrained, imgs, "--out", "two", "--processes", 2)
    assert f"1 masks in two; {n - 1} were finished" in again.stdout and files(tmp_path / "one") == files(tmp_path / "two")


def test_a_broken_picture_is_named_by_whoever_meets_it(aerialseg, untrained, scenes, tmp_path):
    (tmp_path / "flight").mkdir()
    for i in scenes.train[:2]: shutil.copy(scenes.images[i], tmp_path / "flight")
    (tmp_path / "flight/zz.jpg").write_text("404")
    done = aerialseg("predict", untrained, "flight", "--processes", 2)
    assert done.returncode == 2 and "zz.jpg" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not [p for p in (tmp_path / "predictions").iterdir() if p.name[0] == "."]


@pytest.mark.parametrize("args, words", [(["empty"], "holds no picture"), (["flight", "--out", "flight"], "overwrite them")])
def test_folders_that_make_no_sense(aerialseg, untrained, scenes, tmp_path, args, words):
    for name in ("empty", "flight"): (tmp_path / name).mkdir()
    shutil.copy(scenes.images[scenes.train[0]], tmp_path / "flight")
    done = aerialseg("predict", untrained, *args)
    assert done.returncode == 2 and words in done.stderr.splitlines()[-1], done.stderr
