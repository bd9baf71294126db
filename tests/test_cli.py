"""The real command on bad input: one sentence that names the file or the setting and the way out, exit code 2, no
traceback, nothing half-written."""
import os
import shutil
import subprocess
from pathlib import Path

import pytest


def refused(done, *words):
    "Exit code 2, the words, one sentence, no traceback."
    said = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    for w in words: assert w in said, said
    return said


def test_help_shows_examples(aerialseg):
    assert "scored submission" in aerialseg("--help").stdout
    for command in ("run", "verify", "compare", "train", "study", "scenes", "import", "audit", "check", "predict", "map", "export", "annotations", "download", "kernel", "slurm", "doctor"):
        done = aerialseg(command, "--help")
        assert done.returncode == 0 and "xample" in done.stdout


@pytest.mark.parametrize("args, words", [
    (["--profile", "turbo"], ["turbo", "tiny, demo, source, best"]),
    (["--set", "epoch=3"], ["epoch", "did you mean epochs"]),
    (["--set", "epochs=three"], ["epochs=three", "int"]),
    (["--set", "valid_share=2"], ["valid_share", "between"]),
    (["--set", "epochs"], ["name=value"]),
    (["--data", "nowhere"], ["nowhere", "not a folder"]),
    (["--name", "../up"], ["../up", "plain folder name"]),
])
def test_run_refuses_before_anything_starts(aerialseg, tmp_path, args, words):
    refused(aerialseg("run", *args), *words)
    assert not (tmp_path / "runs").exists() and not (tmp_path.parent / "up").exists()


def test_wrong_folder(aerialseg, tmp_path):
    (tmp_path / "pictures").mkdir()
    refused(aerialseg("run", "--data", "pictures"), "train.csv", "ImageSets")
    refused(aerialseg("audit", "pictures"), "train.csv")


def first(folder, what): return getattr(folder, what)[folder.train[0]]


def break_half_a_download(folder):
    for i in folder.train[:5]: folder.images[i].unlink()
    return "missing_image"


def break_text_for_png(folder):
    first(folder, "masks").write_text("<html>404</html>")
    return first(folder, "masks").name


def break_ids(folder):
    from PIL import Image
    Image.new("L", (80, 64), 99).save(first(folder, "masks"))
    return "99"


def break_missing_mask(folder):
    first(folder, "masks").unlink()
    return folder.train[0]


@pytest.mark.parametrize("harm", [break_half_a_download, break_text_for_png, break_ids, break_missing_mask])
def test_broken_data_stops_the_run_and_fills_the_audit(aerialseg, broken, harm, tmp_path):
    word = harm(broken)
    done = aerialseg("audit", broken.root)
    assert word in done.stdout
    refused(done, "faults")
    from aerialseg.core import AerialsegError, create_run, make_recipe
    from aerialseg.dataset import make_split
    with pytest.raises(AerialsegError, match="faults"):
        make_split(create_run(tmp_path / "runs/x", make_recipe("tiny", data=str(broken.root))))
    assert not (tmp_path / "runs/x/split.csv").exists()


def test_submission_with_a_row_too_few(aerialseg, scenes, tmp_path):
    from aerialseg.submission import label_map_to_rles
    import numpy as np
    rows = ["ImageID,EncodedPixels"]
    sample = (scenes.root / "sampleSubmission.csv").read_text().split()[1:]
    order = list(dict.fromkeys(r.split(",")[0].rsplit("_", 1)[0] for r in sample))
    for i in order:
        rows += [f"{i}_{c},{r}" for c, r in enumerate(label_map_to_rles(np.zeros((64, 80), np.uint8), 12))]
    (tmp_path / "s.csv").write_text("\n".join(rows) + "\n")
    assert aerialseg("check", "s.csv", "--data", scenes.root).returncode == 0
    (tmp_path / "s.csv").write_text("\n".join(rows[:7] + rows[8:]) + "\n")
    refused(aerialseg("check", "s.csv", "--data", scenes.root), "s.csv")


def test_no_network_for_an_encoder(tmp_path):
    from aerialseg.core import AerialsegError
    from aerialseg.model import make_model
    code = ("from aerialseg.core import AerialsegError\nfrom aerialseg.model import make_model\n"
            "try: make_model('unet', 'resnet50', 'imagenet', 3)\nexcept AerialsegError as e: print('SAID', e)")
    import sys
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    said = next(line for line in done.stdout.splitlines() if line.startswith("SAID"))
    assert "tu-tf_efficientnet_lite0" in said and "weights=none" in said


def test_prediction_without_a_model(aerialseg, scenes):
    refused(aerialseg("predict", "runs/none", scenes.images[scenes.train[0]]), "runs/none")


def test_scenes_do_not_overwrite(aerialseg, tmp_path):
    (tmp_path / "there").mkdir()
    refused(aerialseg("scenes", "there"), "there", "new folder")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_full_disk_leaves_nothing_half_written(aerialseg, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        refused(aerialseg("scenes", small / "s", "--flights", 3, "--frames", 8, "--height", 192, "--width", 256), "disk")
        assert list(small.iterdir()) == []
        refused(aerialseg("run", "--profile", "tiny", "--runs", small / "runs"), "300 MB")
    finally: subprocess.run(["umount", str(small)], check=True)


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("runuser"), reason="root may write everywhere")
def test_read_only_folder(aerialseg, tmp_path):
    done = aerialseg("scenes", "/proc/nothing/scenes", "--flights", 3, "--frames", 1)
    assert done.returncode != 0 and not Path("/proc/nothing").exists()


def test_two_pictures_of_one_name_are_refused(aerialseg, tmp_path, scenes):
    from aerialseg.core import LANDCOVER12, make_recipe, save_json
    from aerialseg.model import make_model, save_model
    from dataclasses import asdict
    recipe = make_recipe("tiny", arch="small_unet")
    save_json(asdict(recipe), tmp_path / "run/recipe.json")
    save_model(make_model("small_unet", "", "none", 12), tmp_path / "run/model", LANDCOVER12, recipe)
    one = scenes.images[scenes.train[0]]
    other = tmp_path / one.name
    shutil.copy(scenes.images[scenes.train[1]], other)
    refused(aerialseg("predict", "run", one, other), one.stem, "--out")
    assert not (tmp_path / "predictions").exists()
