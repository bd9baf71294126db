"What must hold for any input: splits, tiles, turned copies, counts, thresholds, class lists, recipes, duplicates."
import json
from dataclasses import asdict, fields

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aerialseg.core import (IGNORE_INDEX, LIMITS, PROFILES, AerialsegError, Recipe, Taxonomy, load_classes, load_recipe,
                            load_table, make_recipe, one_line, parse_settings, save_classes, save_json, save_table)

always = settings(max_examples=40, deadline=None, derandomize=True)      # the same examples every time
seeds = st.integers(0, 10**6)


# ---- splits

@st.composite
def frames(draw, least=2):
    "Groups, class pixels and background ratios of some frames."
    n, rng = draw(st.integers(least, 40)), np.random.default_rng(draw(seeds))
    groups = rng.integers(0, draw(st.integers(1, n)), n).astype(str)
    pixels = rng.integers(0, 100, (n, 3)) * (rng.random((n, 3)) < 0.6)
    return groups, pixels, pixels[:, 0] / np.maximum(pixels.sum(1), 1)


@always
@given(frames(), st.floats(0.01, 0.9), st.integers(0, 2**31 - 1))
def test_a_random_split_takes_its_share_and_repeats(some, share, seed):
    from aerialseg.dataset import random_split
    ratio = some[2]
    valid = random_split(ratio, share, seed)
    assert valid.sum() == min(max(round(share * len(ratio)), 1), len(ratio) - 1)
    assert np.array_equal(valid, random_split(ratio, share, seed))     # the same order in, the same split out


@always
@given(frames(), st.floats(0.01, 0.9), seeds, seeds)
def test_a_group_split_cuts_no_group_whatever_the_order(some, share, seed, shuffle):
    from aerialseg.dataset import group_split
    groups, pixels, ratio = some
    assume(len(set(groups)) > 1)
    valid = group_split(groups, pixels, ratio, share, seed, tries=20)
    assert 0 < valid.sum() < len(groups) and not set(groups[valid]) & set(groups[~valid])
    assert abs(valid.sum() - share * len(groups)) <= np.unique(groups, return_counts=True)[1].max()
    order = np.random.default_rng(shuffle).permutation(len(groups))
    again = group_split(groups[order], pixels[order], ratio[order], share, seed, tries=20)
    assert np.array_equal(again, valid[order])


@always
@given(st.integers(2, 30), seeds)
def test_a_mask_that_is_ignored_as_a_whole_can_be_split(n, seed):
    from aerialseg.dataset import random_split
    ratio = np.where(np.random.default_rng(seed).random(n) < 0.5, np.nan, 0.5)
    assert 0 < random_split(ratio, 0.2, seed).sum() < n


# ---- duplicates and groups

hashes = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12).flatmap(
    lambda seen: st.lists(st.tuples(st.sampled_from(seen), st.integers(0, 63)), min_size=1, max_size=14)).map(
    lambda pairs: np.array([h ^ (1 << bit) for h, bit in pairs], np.uint64))


def bits(a, b): return (int(a) ^ int(b)).bit_count()


@always
@given(hashes, st.integers(0, 64))
def test_pairs_are_those_of_brute_force(h, limit):
    from aerialseg.duplicates import near_duplicates, nearest_distance
    ids = [f"i{k}" for k in range(len(h))]
    found = near_duplicates(h, ids, max_distance=limit)
    want = {(ids[i], ids[j], bits(h[i], h[j])) for i in range(len(h)) for j in range(i + 1, len(h)) if bits(h[i], h[j]) <= limit}
    assert set(found.itertuples(index=False, name=None)) == want and len(found) == len(want)
    assert found.distance.is_monotonic_increasing
    across = near_duplicates(h, ids, h[::-1], ids[::-1], limit)
    assert len(across) == 2 * len(want) + len(h)                       # both ways round, and each with itself
    assert nearest_distance(h).tolist() == [min((bits(a, b) for j, b in enumerate(h) if j != i), default=65) for i, a in enumerate(h)]


@always
@given(hashes, st.integers(0, 30), seeds)
def test_groups_are_the_connected_parts_whatever_the_order(h, limit, seed):
    from scipy.sparse.csgraph import connected_components
    from sklearn.metrics import adjusted_rand_score
    from aerialseg.dataset import rebuild_groups
    table = pd.DataFrame({"ImageID": [f"i{k}" for k in range(len(h))], "phash": h})
    groups = rebuild_groups(table, limit)
    parts = connected_components(np.array([[bits(a, b) <= limit for b in h] for a in h]))[1]
    assert adjusted_rand_score(groups, parts) == 1 and set(groups) <= set(table.ImageID)
    order = np.random.default_rng(seed).permutation(len(h))
    assert np.array_equal(rebuild_groups(table.iloc[order], limit), groups[order])


# ---- tiles and turned copies

sizes = st.integers(1, 90)


@always
@given(sizes, sizes, st.integers(1, 40), st.integers(0, 39))
def test_tiles_cover_stay_inside_and_overlap(height, width, tile, overlap):
    from aerialseg.tiles import tile_starts, tile_windows
    if overlap >= tile:
        with pytest.raises(AerialsegError, match="smaller than tile"): tile_windows(height, width, tile, overlap)
        return
    seen = np.zeros((height, width), int)
    for y, x, h, w in tile_windows(height, width, tile, overlap):
        assert 0 <= y and 0 <= x and h <= tile and w <= tile and y + h <= height and x + w <= width
        seen[y:y + h, x:x + w] += 1
    assert seen.min() >= 1
    for side in (height, width):
        starts = tile_starts(side, tile, overlap)
        assert all(0 < b - a <= tile - overlap for a, b in zip(starts, starts[1:]))


@always
@given(sizes, sizes, st.integers(0, 63), seeds)
def test_tiles_of_an_answer_without_context_are_the_answer(height, width, overlap, seed):
    from aerialseg.tiles import tiled_probs
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    recipe = make_recipe("tiny", tile=64, overlap=overlap)
    got = tiled_probs(image, recipe, lambda tiles: [t.transpose(2, 0, 1).astype(np.float32) / 255 for t in tiles], batch=3)
    assert got.shape == (3, height, width) and np.allclose(got, image.transpose(2, 0, 1) / 255, atol=1e-5)


@always
@given(sizes, sizes, st.integers(0, 3), st.booleans(), seeds)
def test_turning_back_undoes_turning(height, width, k, mirrored, seed):
    import torch
    from aerialseg.prediction import turn, turn_back
    x = torch.from_numpy(np.random.default_rng(seed).random((2, 3, height, width)))
    turned = turn(x, k, mirrored)
    assert torch.equal(turn_back(turned, k, mirrored), x)
    assert turned.shape[-2:] == ((height, width) if k % 2 == 0 else (width, height))


@always
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["none", "flip", "d4"]), st.floats(0.2, 5), seeds)
def test_copies_of_a_pixelwise_network_agree(height, width, tta, temperature, seed):
    import torch
    from aerialseg.prediction import batch_probs
    xb = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, 3, height, width)).astype(np.float32))
    probs = batch_probs(torch.nn.Identity(), xb, tta, temperature)
    assert torch.allclose(probs, (xb / temperature).softmax(1), atol=1e-5)


# ---- counts and scores

@st.composite
def predictions(draw):
    "Some frames' predictions and masks, some pixels of which are ignored, and the number of classes."
    n, c, rng = draw(st.integers(1, 6)), draw(st.integers(2, 5)), np.random.default_rng(draw(seeds))
    shape = (n, draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    mask = np.where(rng.random(shape) < draw(st.sampled_from([0, 0.3, 1])), IGNORE_INDEX, rng.integers(0, c, shape)).astype(np.uint8)
    return rng.integers(0, c, shape).astype(np.uint8), mask, c


@always
@given(predictions())
def test_confusion_is_scikit_learns(some):
    from sklearn.metrics import confusion_matrix
    from aerialseg.metrics import confusion
    pred, mask, c = some
    known = mask != IGNORE_INDEX
    want = confusion_matrix(mask[known], pred[known], labels=range(c)) if known.any() else np.zeros((c, c))
    assert np.array_equal(confusion(pred, mask, c), want)


@always
@given(predictions())
def test_counts_add_up_and_swap_with_their_roles(some):
    from aerialseg.metrics import count_table
    pred, mask, c = some
    tp, fp, fn = count_table(pred, mask, c).T
    known = mask != IGNORE_INDEX
    assert tp.sum() + fn.sum() == known.sum() == tp.sum() + fp.sum()
    swapped = count_table(np.where(known, mask, 0), np.where(known, pred, IGNORE_INDEX), c)
    assert np.array_equal(swapped, np.stack([tp, fn, fp], 1))


@always
@given(predictions(), seeds)
def test_scores_lie_in_bounds_and_know_no_order(some, seed):
    from aerialseg.metrics import class_dice, class_iou, count_table, floors, mean_dice, miou, pixel_acc
    pred, mask, c = some
    counts = np.array([count_table(p, m, c) for p, m in zip(pred, mask)])
    images, ids = np.random.default_rng(seed).permutation(len(pred)), np.random.default_rng(seed).permutation(c)
    for score in (mean_dice, miou, pixel_acc):
        value = score(counts)
        assert np.isnan(value) or 0 <= value <= 1
        assert np.isclose(score(counts[images]), value, equal_nan=True) and np.isclose(score(counts[:, ids]), value, equal_nan=True)
    iou, dice = class_iou(counts), class_dice(counts)
    assert ((iou <= dice + 1e-12) | np.isnan(iou)).all() and np.array_equal(np.isnan(iou), np.isnan(dice))
    perfect = np.array([count_table(np.where(m == IGNORE_INDEX, 0, m), m, c) for m in mask])
    assert mean_dice(perfect) == 1 and floors(counts) == floors(perfect)          # floors know the truth only
    assert all(0 <= v <= 1 for v in floors(counts).values() if not np.isnan(v))


@always
@given(predictions(), seeds)
def test_intervals_lie_among_the_groups_and_know_no_order(some, seed):
    from aerialseg.metrics import bootstrap, count_table, image_dice, mean_dice
    pred, mask, c = some
    counts, rng = np.array([count_table(p, m, c) for p, m in zip(pred, mask)]), np.random.default_rng(seed)
    groups = rng.integers(0, 3, len(counts))
    low, high = bootstrap(counts, groups, mean_dice, samples=50)
    if len(set(groups)) < 2:
        assert np.isnan(low) and np.isnan(high)
        return
    means = [image_dice(counts[groups == g]).mean() for g in set(groups)]
    assert min(means) - 1e-9 <= low <= high <= max(means) + 1e-9
    order = rng.permutation(len(counts))
    assert np.allclose(bootstrap(counts[order], groups[order], mean_dice, samples=50), (low, high))
    same = np.repeat(counts[:1], 4, 0)
    assert np.allclose(bootstrap(same, np.arange(4), mean_dice, samples=50), mean_dice(same))


@always
@given(arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30))), st.integers(1, 256))
def test_class_pixels_count_every_pixel_once(mask, n):
    from aerialseg.eda import class_pixels
    assert class_pixels(mask, n).tolist() == [(mask == c).sum() for c in range(n)]


# ---- presence thresholds

@st.composite
def probabilities(draw, n_classes=4):
    "(C,H,W) with specks, and a mask."
    rng = np.random.default_rng(draw(seeds))
    h, w = draw(st.integers(8, 20)), draw(st.integers(8, 20))
    probs = rng.random((n_classes, h, w)) * rng.choice([0.2, 1.0, 3.0], n_classes)[:, None, None]
    probs[draw(st.integers(0, n_classes - 1))] += 1.5 + rng.random((h, w))
    mask = np.where(rng.random((h, w)) < 0.1, IGNORE_INDEX, rng.integers(0, n_classes, (h, w))).astype(np.uint8)
    return (probs / probs.sum(0)).astype(np.float32), mask


@always
@given(probabilities(), arrays(float, 4, elements=st.floats(0, 0.03)))
def test_thresholds_leave_nothing_too_small_and_every_pixel_a_class(some, thresholds):
    from aerialseg.metrics import count_table
    from aerialseg.presence import apply_presence, frame_ranks, presence_counts
    probs, mask = some
    plain, pred = probs.argmax(0), apply_presence(probs, thresholds)
    share = np.bincount(plain.ravel(), minlength=4) / plain.size
    gone = (share > 0) & (share < thresholds)
    assert pred.shape == mask.shape and not set(np.unique(pred)) & set(np.flatnonzero(gone & (share < share.max())))
    assert np.array_equal(pred[~gone[plain]], plain[~gone[plain]])                # who stays keeps its pixels
    assert np.array_equal(apply_presence(probs, np.zeros(4)), plain)
    assert np.array_equal(presence_counts(frame_ranks(probs, mask), thresholds), count_table(pred, mask, 4))


@settings(always, max_examples=15)
@given(st.lists(probabilities(), min_size=1, max_size=4))
def test_learned_thresholds_lose_nothing_where_they_were_learned(some):
    from aerialseg.metrics import mean_dice
    from aerialseg.presence import LARGEST, fit_presence, frame_ranks, presence_counts
    ranks = [frame_ranks(p, m) for p, m in some]
    thresholds = fit_presence(ranks)
    dice = lambda t: mean_dice(np.array([presence_counts(r, t) for r in ranks]))
    assert (thresholds >= 0).all() and (thresholds <= LARGEST).all() and dice(thresholds) >= dice(np.zeros(4)) - 1e-12


# ---- class lists, tables, recipes

signs = st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="$")
names = st.lists(st.one_of(st.text(signs, min_size=1, max_size=12), st.sampled_from(["a, b", 'say "x"', "NA", "007", "é 路", "'", "a;b"])).filter(
    lambda s: s.isprintable() and s == s.strip() and s[0] not in "=+-@"), min_size=2, max_size=12, unique=True)


@always
@given(names, seeds)
def test_class_lists_come_back(tmp_path_factory, some, seed):
    path = tmp_path_factory.mktemp("classes") / "classes.csv"
    colours = tuple(f"#{v:06x}" for v in np.random.default_rng(seed).integers(0, 2**24, len(some)))
    save_classes(Taxonomy("x", tuple(some), colours), path)
    read = load_classes(path)
    assert (read.names, read.colours) == (tuple(some), colours)


@always
@given(st.text(max_size=60), st.sampled_from(["id,name,colour\n", "", "\ufeffid,name,colour\r\n0,a,#000000\r\n"]))
def test_any_text_is_a_class_list_or_refused(tmp_path_factory, text, head):
    path = tmp_path_factory.mktemp("any") / "classes.csv"
    path.write_bytes((head + text).encode("utf-8", "surrogatepass"))
    try: read = load_classes(path)
    except AerialsegError as e: assert "classes.csv" in str(e) and str(e).isprintable()
    else: assert 2 <= read.n_classes == len(set(read.names)) and all(n.isprintable() for n in read.names)


@always
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=9), min_size=1, max_size=9))
def test_tables_give_names_back_exactly(tmp_path_factory, some):
    path = tmp_path_factory.mktemp("table") / "t.csv"
    save_table(pd.DataFrame({"ImageID": some, "miou": np.arange(len(some)) / 7}), path)
    assert list(load_table(path).ImageID) == some and np.allclose(load_table(path).miou, np.arange(len(some)) / 7)


@always
@given(st.text(max_size=300), st.integers(2, 150))
def test_one_line_is_short_and_shows(text, most):
    line = one_line(text, most)
    assert line.isprintable() and len(line) <= 10 * (most + 1)
    assert line == text or not text.isprintable() or len(text) > most


def value_of(f):
    "Values a setting may have."
    limits = LIMITS.get(f.name)
    if f.name == "profile": return st.sampled_from(sorted(PROFILES))
    if isinstance(f.default, bool): return st.booleans()
    if isinstance(f.default, tuple): return st.lists(st.integers(*limits), max_size=5).map(tuple)
    if limits is None: return st.text(st.characters(codec="utf-8"), max_size=12)
    if isinstance(limits[0], str): return st.sampled_from(limits)
    return st.floats(*limits) if isinstance(f.default, float) else st.integers(*limits)


some_settings = st.fixed_dictionaries({}, optional={f.name: value_of(f) for f in fields(Recipe)})
fits = lambda s: {**asdict(Recipe()), **s}["overlap"] < {**asdict(Recipe()), **s}["tile"] and s.get("ce_weight", 1) + s.get("dice_weight", 1) > 0


@always
@given(some_settings.filter(fits))
def test_recipes_come_back_from_files_and_from_words(tmp_path_factory, some):
    path, recipe = tmp_path_factory.mktemp("recipe") / "recipe.json", make_recipe("tiny", **some)
    save_json(asdict(recipe), path)
    assert load_recipe(path) == recipe and load_recipe(path).fingerprint == recipe.fingerprint
    words = [f"{k}={','.join(map(str, v)) if isinstance(v, tuple) else str(v).lower() if isinstance(v, bool) else v}" for k, v in some.items()]
    assert parse_settings(words) == some


anything = st.recursive(st.none() | st.booleans() | st.integers(-10**9, 10**30) | st.floats() | st.text(max_size=6),
                        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=5)


@always
@given(st.sampled_from([f.name for f in fields(Recipe)] + ["epoch", "", "__class__"]), anything)
def test_any_value_in_a_recipe_is_taken_or_refused(tmp_path_factory, name, value):
    path = tmp_path_factory.mktemp("any") / "recipe.json"
    path.write_text(json.dumps({**asdict(Recipe()), name: value}))
    try: recipe = load_recipe(path)
    except AerialsegError as e: assert "recipe.json" in str(e)
    else: assert type(getattr(recipe, name)) is type(getattr(Recipe(), name))


@always
@given(st.one_of(st.text(max_size=20), st.builds("{}={}".format, st.sampled_from([f.name for f in fields(Recipe)]), st.text(max_size=12)),
                 st.builds("{}={}".format, st.sampled_from([f.name for f in fields(Recipe)]), anything)))
def test_any_word_is_a_setting_or_refused(word):
    try: got = parse_settings([word])
    except AerialsegError as e: assert str(e)
    else: assert all(type(v) is type(getattr(Recipe(), k)) for k, v in got.items())
