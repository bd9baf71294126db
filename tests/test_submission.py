"Run lengths and the submission file: properties, and what a file on disk can get wrong."
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from aerialseg.core import AerialsegError
from aerialseg.folder import open_folder
from aerialseg.metrics import count_table
from aerialseg.rle import (SOURCE_SIZE, grade_rles, label_map_to_rles, mask_to_rle, parse_rle, resize_mask, rle_to_mask,
                           source_rle)

N = 6
shapes = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=17)
masks = arrays(np.uint8, shapes, elements=st.integers(0, 1))
maps = arrays(np.uint8, shapes, elements=st.integers(0, N - 1))
orders = st.sampled_from(["row", "column"])


@given(masks, orders)
def test_decoding_undoes_encoding(mask, order):
    assert np.array_equal(rle_to_mask(mask_to_rle(mask, order), *mask.shape, order), mask)


@given(masks, orders)
def test_runs_are_sorted_apart_and_in_bounds(mask, order):
    starts, lengths = parse_rle(mask_to_rle(mask, order), mask.size)
    assert (starts[1:] > (starts + lengths)[:-1]).all()           # a gap between neighbours: no run could be longer
    assert lengths.sum() == mask.sum()


@given(masks)
def test_column_order_is_row_order_of_the_transposed(mask):
    assert mask_to_rle(mask, "column") == mask_to_rle(mask.T, "row")


@given(maps, orders)
def test_one_pass_equals_class_by_class(labels, order):
    assert label_map_to_rles(labels, N, order) == [mask_to_rle(labels == c, order) for c in range(N)]


@given(maps)
def test_pycocotools_agrees(labels):
    coco = pytest.importorskip("pycocotools.mask")
    for c in range(N):
        mask = np.asfortranarray(labels == c, dtype=np.uint8)
        starts, lengths = parse_rle(mask_to_rle(mask, "column"), mask.size)
        counts = np.diff(np.r_[0, np.column_stack([starts, starts + lengths]).ravel(), mask.size]).tolist()
        packed = coco.frPyObjects({"counts": counts, "size": list(mask.shape)}, *mask.shape)
        assert np.array_equal(coco.decode(packed), mask)
        if counts[-1]: assert packed["counts"] == coco.encode(mask)["counts"]


@given(maps, maps)
def test_the_grader_counts_like_the_metric(pred, mask):
    mask = resize_mask(mask, *pred.shape)
    assert np.array_equal(grade_rles(label_map_to_rles(pred, N), mask, N), count_table(pred, mask, N))


@given(st.text(alphabet="0123456789 .-+_a\u0661\t\n,", max_size=30))
def test_any_text_is_parsed_or_refused(text):
    try: starts, lengths = parse_rle(text, 100)
    except AerialsegError: return
    assert (starts >= 0).all() and (lengths > 0).all() and (starts + lengths <= 100).all()
    assert mask_to_rle(rle_to_mask(text, 10, 10)) or not text.strip()


@given(maps, st.integers(1, 20), st.integers(1, 20))
def test_resizing_invents_no_id(labels, height, width):
    small = resize_mask(labels, height, width)
    assert small.shape == (height, width) and set(np.unique(small)) <= set(np.unique(labels))


def test_numbers_beyond_64_bits_are_refused():
    with pytest.raises(AerialsegError, match="whole number"): parse_rle("9" * 30 + " 1", 100)
    with pytest.raises(AerialsegError, match="out of bounds"): parse_rle("9" * 18 + " " + "9" * 18, 100)


def test_the_source_rows_are_read():
    mask = rle_to_mask("383 2 32639 2 33023 2", *SOURCE_SIZE, "column")
    assert np.argwhere(mask).tolist() == [[382, 0], [382, 84], [382, 85], [383, 0], [383, 84], [383, 85]]
    assert source_rle(mask) == "383 2 32639 2 33023 2"
    other = rle_to_mask("95056 7 95437 11", *SOURCE_SIZE, "column")
    assert other.sum() == 18 and np.flatnonzero(other.any(0)).tolist() == [247, 248]


@pytest.fixture
def folder(tmp_path):
    "Three test frames of 8×12, four classes; no sampleSubmission."
    (tmp_path / "imgs/imgs").mkdir(parents=True)
    for i in "123": Image.new("RGB", (12, 8)).save(tmp_path / f"imgs/imgs/{i}.jpg")
    (tmp_path / "classes.csv").write_text("id,name,colour\n" + "".join(f"{c},c{c},#00000{c}\n" for c in range(4)))
    (tmp_path / "train.csv").write_text("ImageID\n1\n")
    (tmp_path / "test.csv").write_text("ImageID\n1\n2\n3\n")
    return open_folder(tmp_path)


def predict(image):
    pred = np.zeros(image.shape[:2], np.uint8)
    pred[2:5, 3:9], pred[6:, 1:4] = 1, 3
    return pred


def test_written_file_passes_and_reads_back(folder, tmp_path):
    from aerialseg.submission import check_submission, read_frames, score_submission, write_rows
    path = write_rows(tmp_path / "s.csv", folder, predict)
    summary = check_submission(path, folder)
    assert (summary["rows"], summary["frames"], summary["empty"]) == (12, 3, 0.25) and summary["reads_as"] != "column"
    assert [i for i, _ in read_frames(path, folder)] == ["1", "2", "3"]
    truth = {i: tmp_path / f"{i}.png" for i in "123"}
    for p in truth.values(): Image.fromarray(predict(np.zeros((8, 12, 3)))).save(p)
    assert score_submission(path, folder, truth)["scores"]["mean_dice"]["value"] == 1.0
    with pytest.raises(AerialsegError, match="frame 1 has no known mask"): score_submission(path, folder, {})


def test_column_order_and_resized_masks_by_name(folder, tmp_path):
    from aerialseg.submission import check_submission, write_rows
    column = write_rows(tmp_path / "c.csv", folder, predict, "column")
    assert check_submission(column, folder, "column")["rows"] == 12
    source = write_rows(tmp_path / "source.csv", folder, predict, "column", SOURCE_SIZE)
    assert check_submission(source, folder, "column", "resized")["rows"] == 12
    with pytest.raises(AerialsegError, match="out of bounds"): check_submission(source, folder)


BREAKS = {  # what is done to the lines, and words of the sentence that must come
    "a row too few at the end": (lambda x: x.pop(), ["ends after line 12", "3_3", "12 rows"]),
    "a row too few inside": (lambda x: x.pop(5), ["line 6", "2_1", "2_0", "missing"]),
    "a row twice": (lambda x: x.insert(4, x[3]), ["line 5", "1_2", "1_3", "doubled"]),
    "two rows swapped": (lambda x: x.insert(2, x.pop(3)), ["line 3", "order of sampleSubmission"]),
    "another frame": (lambda x: x.__setitem__(1, x[1].replace("1_0", "77_0")), ["line 2", "77_0", "another folder"]),
    "a class too many": (lambda x: x.__setitem__(4, x[4].replace("1_3", "1_4")), ["line 5", "1_4", "no such row"]),
    "more rows": (lambda x: x.append("4_0,"), ["line 14", "4_0", "delete"]),
    "no header": (lambda x: x.pop(0), ["line 1", "ImageID,EncodedPixels"]),
    "a third field": (lambda x: x.__setitem__(2, x[2] + ",5"), ["line 3", "3 fields"]),
    "an odd count": (lambda x: x.__setitem__(2, x[2] + " 50"), ["line 3", "1_1", "pairs"]),
    "a length of 0": (lambda x: x.__setitem__(3, "1_2,5 0"), ["line 4", "1_2", "length 0"]),
    "a float": (lambda x: x.__setitem__(3, "1_2,5.0 1"), ["line 4", "'5.0'"]),
    "counted from 0": (lambda x: x.__setitem__(3, "1_2,0 1"), ["line 4", "number 1"]),
    "unsorted": (lambda x: x.__setitem__(2, "1_1,40 6 28 6"), ["line 3", "sort"]),
    "overlapping runs": (lambda x: x.__setitem__(2, "1_1,28 6 30 6"), ["line 3", "overlaps"]),
    "out of bounds": (lambda x: x.__setitem__(2, "1_1,96 2"), ["line 3", "97 of 96"]),
    "rows that overlap": (lambda x: x.__setitem__(3, "1_2,28 1"), ["line 4", "1_2", "class 1 already"]),
    "an empty background": (lambda x: x.__setitem__(1, "1_0,"), ["line 2", "no class", "background"]),
    "a shifted run": (lambda x: x.__setitem__(2, x[2].replace("28 6", "29 6")), ["line 3", "pixel 34 is class 0"]),
}


@pytest.mark.parametrize("name", BREAKS)
def test_broken_files_are_named(name, folder, tmp_path):
    from aerialseg.submission import check_submission, write_rows
    change, words = BREAKS[name]
    path = write_rows(tmp_path / "s.csv", folder, predict)
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(AerialsegError) as e: check_submission(path, folder)
    assert all(w in str(e.value) for w in ["s.csv", *words]), str(e.value)
    assert "\n" not in str(e.value)


def test_the_wrong_direction_is_seen_where_frames_are_not_square(tmp_path):
    from aerialseg.submission import changes_below
    yy, xx = np.mgrid[:60, :110]
    for labels in ((yy - 30) ** 2 + (xx - 40) ** 2 < 300, xx > 70, yy + xx > 90):
        row, column = changes_below(labels.ravel(), 60, 110), changes_below(labels.ravel("F"), 60, 110)
        assert row[0] < row[1] and column[1] < column[0]
        assert np.allclose(row[0], np.mean(labels[1:] != labels[:-1]))        # the pixel below, counted the plain way
    horizon = changes_below((yy > 33).ravel(), 60, 110)
    assert horizon[0] < 4 * horizon[1]                                        # nothing but a horizon: no false alarm


def test_files_that_are_no_submission(folder, tmp_path):
    from aerialseg.submission import check_submission
    (tmp_path / "picture.csv").write_bytes(bytes(range(256)))
    (tmp_path / "nothing.csv").write_bytes(b"")
    for name in ("picture.csv", "nothing.csv", "missing.csv", "imgs"):
        with pytest.raises(AerialsegError, match=name): check_submission(tmp_path / name, folder)


def test_a_byte_order_mark_and_windows_lines_are_fine(folder, tmp_path):
    from aerialseg.submission import check_submission, write_rows
    path = write_rows(tmp_path / "s.csv", folder, predict)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert check_submission(path, folder)["rows"] == 12


def test_an_interrupted_writer_leaves_the_old_file(folder, tmp_path):
    from aerialseg.submission import write_rows
    path, calls = write_rows(tmp_path / "s.csv", folder, predict), []
    before = path.read_bytes()

    def dies(image):
        calls.append(1)
        if len(calls) == 3: raise KeyboardInterrupt
        return predict(image) * 0
    with pytest.raises(KeyboardInterrupt): write_rows(path, folder, dies)
    assert path.read_bytes() == before and len(list(tmp_path.glob("*s.csv*"))) == 2  # s.csv, classes.csv


def test_missing_pictures_are_said_before_anything_is_predicted(folder, tmp_path):
    from aerialseg.submission import write_rows
    os.remove(folder.images["2"])
    with pytest.raises(AerialsegError, match="1 test frames have no picture, the first is 2"):
        write_rows(tmp_path / "s.csv", open_folder(tmp_path), lambda image: 1 / 0)
