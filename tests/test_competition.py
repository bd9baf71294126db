"A stand-in for the competition's folder: all 3,269 ids, small pictures, the real writer and the real validator."
import csv
import os
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aerialseg.core import AerialsegError
from aerialseg.folder import open_folder

KAGGLE = Path(__file__).resolve().parents[2] / "shared" / "kaggle"
N_TRAIN, N_TEST, N_CLASSES = 2621, 648, 12


def competition_ids():
    "The real id lists where they are at hand, else as many of the same kind."
    if KAGGLE.is_dir():
        return tuple([r["ImageID"] for r in csv.DictReader(open(KAGGLE / f"{p}.csv"))] for p in ("train", "test"))
    rng = random.Random(0)
    ids = [str(rng.randrange(10**17, 2**64)) for _ in range(N_TRAIN + N_TEST)]      # no two alike: there are 2^64
    return ids[:N_TRAIN], ids[N_TRAIN:]


def picture(height, width, seed):
    "Four flat areas of different brightness with soft noise: something a threshold can tell apart."
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 25, (height, width, 3))
    image[: height // 2, : width // 3] += 60
    image[height // 2:, width // 4:] += 120
    image[height // 4: height // 2, width // 2:] += 200
    return image.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("competition")
    train, test = competition_ids()
    for sub in ("imgs/imgs", "masks/masks", "kinds"): (root / sub).mkdir(parents=True)
    kinds = []
    for k, (h, w) in enumerate([(32, 48)] * 6 + [(720, 1280)] * 2):      # eight files; every frame is a hard link to one
        kinds.append((root / f"kinds/{k}.jpg", root / f"kinds/{k}.png"))
        Image.fromarray(picture(h, w, k)).save(kinds[-1][0], quality=90)
        Image.fromarray(predict(picture(h, w, k))).save(kinds[-1][1])
    for n, i in enumerate(train + test):
        jpg, png = kinds[6 + n % 2] if n % 300 == 0 else kinds[n % 6]
        os.link(jpg, root / f"imgs/imgs/{i}.jpg")
        if n < len(train): os.link(png, root / f"masks/masks/{i}.png")
    for name, ids in (("train", train), ("test", test)): (root / f"{name}.csv").write_text("\n".join(["ImageID", *ids]) + "\n")
    rows = [f"{i}_{c}," for i in test for c in range(N_CLASSES)]
    (root / "sampleSubmission.csv").write_text("\n".join(["ImageID,EncodedPixels", *rows]) + "\n")
    return open_folder(root)


def predict(image):
    "A cheap model: brightness in steps, as ids 0, 3, 6, 9."
    return (np.minimum(image.mean(2) // 50, 3) * 3).astype(np.uint8)


@pytest.fixture(scope="module")
def written(folder):
    from aerialseg.submission import write_rows
    tracemalloc.start()
    path = write_rows(folder.root / "submission.csv", folder, predict)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return path, peak


def test_the_folder_is_the_competitions(folder):
    assert len(folder.train) == N_TRAIN and len(folder.test) == N_TEST and len(folder.images) == 3269
    assert folder.taxonomy.name == "aeroscapes" and folder.taxonomy.n_classes == N_CLASSES
    assert len(set(folder.train) | set(folder.test)) == 3269
    assert max(map(len, folder.test)) == 20            # longer than a 64-bit number of 19 digits


def test_it_audits_clean(folder):
    from aerialseg.dataset import audit
    assert audit(folder).empty


def test_7776_rows_pass(folder, written):
    from aerialseg.submission import check_submission
    path, peak = written
    lines = path.read_text().splitlines()
    sample = (folder.root / "sampleSubmission.csv").read_text().splitlines()
    assert len(lines) == 1 + 648 * 12 == 7777
    assert [x.split(",")[0] for x in lines] == [x.split(",")[0] for x in sample]
    summary = check_submission(path, folder)
    assert summary["rows"] == 7776 and summary["frames"] == 648 and 0.5 < summary["empty"] < 0.9
    assert peak < 150e6                                  # a frame at a time, not 648 of them


def test_the_validator_streams(folder, written):
    from aerialseg.submission import check_submission
    tracemalloc.start()
    check_submission(written[0], folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6


def shift_run(lines):
    "Move the first run of row 5000 or the next one that has any by one pixel."
    k = next(k for k in range(5000, len(lines)) if not lines[k].endswith(","))
    name, rle = lines[k].split(",")
    start, rest = rle.split(" ", 1)
    lines[k] = f"{name},{int(start) + 1} {rest}"


BREAKS = {
    "drop a row": (lambda x: x.pop(4321), ["line 4322", "missing"]),
    "drop the last row": (lambda x: x.pop(), ["ends after line 7776", "7776 rows"]),
    "swap two rows": (lambda x: x.__setitem__(slice(100, 102), x[101:99:-1]), ["line 101", "order of sampleSubmission.csv"]),
    "shift a run": (shift_run, ["pixel", "class"]),
    "one frame twice": (lambda x: x.__setitem__(slice(13, 25), x[1:13]), ["line 14", "doubled"]),
    "ids as rounded numbers": (lambda x: x.__setitem__(1, f"{float(x[1].split('_')[0]):.0f}_0,"), ["line 2", "no such row"]),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_copy_is_refused(name, folder, written, tmp_path):
    from aerialseg.submission import check_submission
    change, words = BREAKS[name]
    lines = written[0].read_text().splitlines()
    change(lines)
    (tmp_path / "broken.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(AerialsegError) as e: check_submission(tmp_path / "broken.csv", folder)
    assert all(w in str(e.value) for w in ["broken.csv", *words]), str(e.value)


def test_half_a_sample_is_not_believed(folder, tmp_path):
    from dataclasses import replace
    from aerialseg.submission import expected_frames
    text = (folder.root / "sampleSubmission.csv").read_text()
    (tmp_path / "sampleSubmission.csv").write_text(text[: len(text) // 2])
    with pytest.raises(AerialsegError, match="is it whole"): expected_frames(replace(folder, root=tmp_path))
