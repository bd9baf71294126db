"""Other people's data: every format there and back, files full of nonsense, and the whole chain from the command line."""
import copy
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from aerialseg.core import AerialsegError, IGNORE_INDEX, Taxonomy, load_json, save_classes, save_json
from aerialseg.folder import load_image, load_mask, open_folder
from aerialseg.maps.folders import IGNORED, Files
from aerialseg.maps.formats import (Piece, counts_to_mask, counts_to_text, draw_polygon, mask_to_counts, paint, split_mask,
                                    text_to_counts, trace, window_counts)
from aerialseg.maps.own_data import import_data, read_source
from aerialseg.maps.writers import WRITERS, write_annotations
from aerialseg.study import real_pictures

from test_cli import refused

always = settings(max_examples=60, deadline=None, derandomize=True)
bits = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40))
labels = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.sampled_from([0, 1, 2, IGNORE_INDEX]))
THREE = Taxonomy("three", ("grass", "car", 'a "b" & <c>'), ("#00ff00", "#ff0010", "#0000ff"))
IDS = {n: i for i, n in enumerate(THREE.names)} | {IGNORED: IGNORE_INDEX}


def put(path: Path, array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)
    return path


# ---- run lengths and outlines

@always
@given(bits, st.sampled_from(["row", "column"]))
def test_run_lengths_come_back(mask, order):
    counts = mask_to_counts(mask, order)
    assert sum(counts) == mask.size and np.array_equal(counts_to_mask(counts, *mask.shape, order, "x"), mask)
    assert text_to_counts(counts_to_text(counts), "x") == counts


@always
@given(bits)
def test_the_text_is_cocos(mask):
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    assert counts_to_text(mask_to_counts(mask, "column")) == theirs
    assert text_to_counts(theirs, "x") == mask_to_counts(mask, "column")


@always
@given(st.text(max_size=30))
def test_any_text_is_run_lengths_or_refused(text):
    try: assert all(isinstance(n, int) for n in text_to_counts(text, "x"))
    except AerialsegError as e: assert str(e).startswith("x")


@always
@given(labels)
def test_outlines_give_the_mask_back(mask):
    pieces = split_mask(mask, THREE, IGNORED)
    assert sum(p.area for p in pieces) == mask.size
    assert np.array_equal(paint([draw_polygon(p.label, [trace(p)], *mask.shape) for p in pieces], *mask.shape, IDS), mask)


@always
@given(bits, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_counting_in_a_window_is_counting_in_the_picture(mask, top, left, below, right):
    H, W = mask.shape[0] + top + below, mask.shape[1] + left + right
    whole = np.pad(mask, ((top, below), (left, right)))
    assert window_counts(Piece("a", mask, top, left), H, W) == mask_to_counts(whole, "column")


def stars(seed, n=40):
    "Random polygons, whose edges may cross."
    rng = np.random.default_rng(seed)
    return [rng.uniform(-10, 60, (rng.integers(3, 12), 2)) for _ in range(n)]


def test_gdal_draws_the_same_polygons():
    features = pytest.importorskip("rasterio.features")
    for points in stars(1, 200):
        ours = paint([draw_polygon("a", [points], 50, 45)], 50, 45, {"a": 1}, 0)
        theirs = features.rasterize([({"type": "Polygon", "coordinates": [[*map(tuple, points), tuple(points[0])]]}, 1)], (50, 45))
        assert np.array_equal(ours, theirs)


def test_areas_are_shapelys_up_to_the_border():
    shapely = pytest.importorskip("shapely")
    for points in stars(2):
        polygon = shapely.convex_hull(shapely.MultiPoint(points))
        corners = np.array(polygon.exterior.coords)[:-1] + 20
        assert abs(draw_polygon("a", [corners], 100, 100).area - polygon.area) <= polygon.length


# ---- formats, there and back

@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    "A folder of pictures and masks with every class and ignored pixels."
    root, rng = tmp_path_factory.mktemp("masks"), np.random.default_rng(0)
    for k in range(3):
        blocks = rng.choice([0, 1, 2, 255], (5, 6), p=[.5, .2, .2, .1])
        mask = np.kron(blocks, np.ones((7, 8), int))
        mask[rng.random(mask.shape) < .02] = 1
        put(root / f"masks/f{k}.png", mask)
        put(root / f"images/f{k}.png", rng.integers(0, 255, (*mask.shape, 3)))
    save_classes(THREE, root / "classes.csv")
    return root


@pytest.mark.parametrize("to", list(WRITERS))
def test_masks_survive_a_format(masks, tmp_path, to):
    write_annotations(masks / "masks", masks / "images", masks / "classes.csv", to, tmp_path / "out", tolerance=0)
    made = import_data(tmp_path / "out", tmp_path / "data", classes=masks / "classes.csv", unlabelled="ignore")
    folder = open_folder(made.folder)
    assert made.kind == to and len(folder.train) == 3
    for i in folder.train:
        assert np.array_equal(folder.mask(i), load_mask(masks / f"masks/{i}.png"))
        assert np.array_equal(folder.image(i), load_image(masks / f"images/{i}.png"))


def test_cocos_tools_open_our_file(masks, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    write_annotations(masks / "masks", masks / "images", masks / "classes.csv", "coco", tmp_path / "out")
    opened = coco.COCO(str(tmp_path / "out/instances.json"))
    for i, image in opened.imgs.items():
        theirs = np.full((image["height"], image["width"]), IGNORE_INDEX, np.uint8)
        for a in opened.imgToAnns[i]:
            pixels = opened.annToMask(a).astype(bool)
            assert pixels.sum() == a["area"]
            theirs[pixels] = a["category_id"] - 1
        assert np.array_equal(theirs, load_mask(masks / "masks" / image["file_name"]))


def test_labelme_within_its_tolerance(masks, tmp_path):
    write_annotations(masks / "masks", masks / "images", masks / "classes.csv", "labelme", tmp_path / "out", tolerance=1)
    folder = open_folder(import_data(tmp_path / "out", tmp_path / "data", classes=masks / "classes.csv").folder)
    for i in folder.train:
        wrong = folder.mask(i) != load_mask(masks / f"masks/{i}.png")
        assert wrong.mean() < .05


def test_a_rotated_picture_is_turned_for_labelme(tmp_path):
    picture = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    exif = picture.getexif()
    exif[274] = 6
    picture.save(tmp_path / "in.jpg", exif=exif)
    (tmp_path / "lm").mkdir()
    shutil.move(tmp_path / "in.jpg", tmp_path / "lm/7.jpg")
    shape = {"label": "car", "points": [[0, 0], [4, 3]], "shape_type": "rectangle"}
    save_json({"imagePath": "7.jpg", "imageHeight": 6, "imageWidth": 4, "shapes": [shape]}, tmp_path / "lm/7.json")
    folder = open_folder(import_data(tmp_path / "lm", tmp_path / "data").folder)
    assert folder.size("7") == (6, 4) and folder.mask("7").tolist() == [[1] * 4] * 3 + [[0] * 4] * 3


def test_classes_by_name_whatever_the_order(masks, tmp_path):
    write_annotations(masks / "masks", masks / "images", masks / "classes.csv", "coco", tmp_path / "out")
    other = Taxonomy("other", THREE.names[::-1], THREE.colours)
    save_classes(other, tmp_path / "classes.csv")
    folder = open_folder(import_data(tmp_path / "out", tmp_path / "data", classes=tmp_path / "classes.csv").folder)
    mask, before = folder.mask("f0"), load_mask(masks / "masks/f0.png")
    for i in range(3): assert np.array_equal(mask == 2 - i, before == i)


# ---- nonsense

BAD = [None, True, -1, 0, 1.5, 10**30, 1e308, float("nan"), "", "x", "../../etc/passwd", [], [1], [[1, 2], [3, 4]], {}, {"size": [1]}]


def nodes(doc, path=()):
    "The paths of all values in a document."
    yield path
    for key, value in (doc.items() if isinstance(doc, dict) else enumerate(doc) if isinstance(doc, list) else ()):
        yield from nodes(value, (*path, key))


def mutants(doc):
    "The document with each value replaced by each bad one, or left out."
    for path in nodes(doc):
        for bad in BAD:
            if not path:
                yield bad
                continue
            broken = copy.deepcopy(doc)
            inside = broken
            for key in path[:-1]: inside = inside[key]
            inside[path[-1]] = bad
            yield broken
        if path and isinstance(path[-1], str):
            broken = copy.deepcopy(doc)
            inside = broken
            for key in path[:-1]: inside = inside[key]
            del inside[path[-1]]
            yield broken


def digest(root: Path, kind: str):
    "Read a source and make all its masks: works, or says why not in one sentence."
    try:
        source = read_source(root, kind)
        ids = {n: k for k, n in enumerate(source.labels)} | {IGNORED: 255}
        for item in source.items:
            if item.mask: assert item.mask(ids, 255).dtype == np.uint8
    except AerialsegError as e: assert "\n" not in str(e) and len(str(e)) < 1100


COCO = {"images": [{"id": 1, "file_name": "7.png", "height": 3, "width": 4}], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[0, 0, 2, 0, 2, 2]]},
                        {"id": 2, "image_id": 1, "category_id": 2, "segmentation": {"size": [3, 4], "counts": [3, 6, 3]}},
                        {"id": 3, "image_id": 1, "category_id": 2, "segmentation": {"size": [3, 4], "counts": "363"}}]}
PANOPTIC = {**{k: COCO[k] for k in ("images",)}, "categories": [{"id": 1, "name": "a", "color": [1, 2, 3]}],
            "annotations": [{"image_id": 1, "file_name": "7.png", "segments_info": [{"id": 7, "category_id": 1}]}]}
LABELME = {"imagePath": "7.png", "imageHeight": 3, "imageWidth": 4, "imageData": None,
           "shapes": [{"label": "a", "points": [[0, 0], [2, 0], [2, 2]], "shape_type": "polygon"}, {"label": "b", "points": [[1, 1], [2, 1]], "shape_type": "circle"},
                      {"label": "b", "points": [[1, 1], [2, 1]], "shape_type": "mask", "mask": "AAAA"}]}
GEOJSON = {"type": "FeatureCollection", "crs": {"type": "name", "properties": {"name": "EPSG:4326"}}, "features": [
    {"type": "Feature", "properties": {"class": "a"}, "geometry": {"type": "Polygon", "coordinates": [[[10, 50], [10.1, 50], [10, 49.9]]]}}]}


@pytest.mark.parametrize("kind, doc", [("coco", COCO), ("panoptic", PANOPTIC), ("labelme", LABELME), ("geojson", GEOJSON)])
def test_nonsense_in_json_is_a_sentence(tmp_path, kind, doc):
    put(tmp_path / "7.png", np.zeros((3, 4, 3)))
    if kind == "panoptic": put(tmp_path / "panoptic/7.png", np.full((3, 4, 3), (7, 0, 0)))
    if kind == "geojson":
        rasterio = pytest.importorskip("rasterio")
        with rasterio.open(tmp_path / "r.tif", "w", driver="GTiff", height=3, width=4, count=3, dtype="uint8", crs="EPSG:4326",
                           transform=rasterio.transform.from_origin(10, 50, .01, .01)) as f: f.write(np.zeros((3, 3, 4), np.uint8))
    (tmp_path / "a.json").write_text(json.dumps(doc))
    assert len(read_source(tmp_path, kind).items) == 1
    for broken in mutants(doc):
        (tmp_path / "a.json").write_text(json.dumps(broken))
        digest(tmp_path / "a.json", kind)


CVAT = """<annotations><meta><task><labels><label><name>a</name><color>#112233</color></label></labels></task></meta>
<image id="0" name="7.png" width="4" height="3"><polygon label="a" points="0,0;2,0;2,2" z_order="0"/><box label="b" xtl="0" ytl="0" xbr="2" ybr="1" rotation="3"/>
<ellipse label="a" cx="1" cy="1" rx="2" ry="1"/><mask label="b" rle="0, 2" left="1" top="0" width="1" height="2" z_order="0"/></image></annotations>"""


def test_nonsense_in_xml_is_a_sentence(tmp_path):
    put(tmp_path / "7.png", np.zeros((3, 4, 3)))
    for element in range(len(list(ET.fromstring(CVAT).iter()))):
        for bad in ("", "x", "-1", "1e400", "nan", "99999999999999999999", "0,0", "0,0;1,1", "../../etc/passwd", None):
            keys = [*list(ET.fromstring(CVAT).iter())[element].attrib, "#text", "#gone"]
            for key in keys:
                root = ET.fromstring(CVAT)
                e = list(root.iter())[element]
                if key == "#text": e.text = bad
                elif key == "#gone": e.tag = "other"
                elif bad is None: del e.attrib[key]
                else: e.set(key, bad)
                ET.ElementTree(root).write(tmp_path / "a.xml")
                digest(tmp_path / "a.xml", "cvat")


def test_an_xml_bomb_is_not_lit(tmp_path, aerialseg):
    words = "".join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 10))
    (tmp_path / "own").mkdir()
    (tmp_path / "own/a.xml").write_text(f'<!DOCTYPE annotations [<!ENTITY a0 "ha">{words}]><annotations>&a9;</annotations>')
    refused(aerialseg("import", "own", "data", timeout=60), "a.xml", "document type")
    (tmp_path / "own/a.xml").write_bytes(f'<?xml version="1.0" encoding="utf-16"?><!DOCTYPE annotations [<!ENTITY a0 "ha">{words}]><annotations>&a9;</annotations>'.encode("utf-16"))
    refused(aerialseg("import", "own", "data", "--kind", "folders", timeout=60), "own")
    from aerialseg.maps.readers import parse_xml
    with pytest.raises(AerialsegError, match="XML"): parse_xml(tmp_path / "own/a.xml")


def test_a_polygon_of_very_many_points_ends(tmp_path):
    put(tmp_path / "7.png", np.zeros((400, 400, 3)))
    zigzag = [v for k in range(400_000) for v in (k % 400, 400 * (k % 2))]
    doc = COCO | {"images": [COCO["images"][0] | {"height": 400, "width": 400}], "annotations": [COCO["annotations"][0] | {"segmentation": [zigzag]}]}
    (tmp_path / "a.json").write_text(json.dumps(doc))
    with pytest.raises(AerialsegError, match="simplify"): read_source(tmp_path).items[0].mask({"a": 0, "b": 1}, 255)


@pytest.mark.parametrize("suffix, wrong", [("jpg", "64 colours"), ("png", None)])
def test_colours_smeared_by_jpeg(tmp_path, suffix, wrong):
    rng = np.random.default_rng(0)
    for k in range(2):
        put(tmp_path / f"own/images/{k}.png", np.zeros((48, 64, 3)))
        put(tmp_path / f"own/masks/{k}.{suffix}", np.kron(rng.choice([0, 120, 250], (6, 8, 3)), np.ones((8, 8, 1))))
    if wrong:
        with pytest.raises(AerialsegError, match=wrong): import_data(tmp_path / "own", tmp_path / "data")
        assert not (tmp_path / "data").exists()
    else: assert 2 <= import_data(tmp_path / "own", tmp_path / "data").taxonomy.n_classes <= 27


def test_links_out_of_a_path_are_names_only(tmp_path):
    put(tmp_path / "secret.png", np.zeros((3, 4, 3)))
    (tmp_path / "own").mkdir()
    (tmp_path / "own/a.json").write_text(json.dumps(COCO | {"images": [COCO["images"][0] | {"file_name": "../secret.png"}]}))
    with pytest.raises(AerialsegError, match="none is in"): read_source(tmp_path / "own")
    assert Files(tmp_path / "own").find(str(tmp_path / "secret.png")) is None


# ---- maps

def raster(path: Path, pixels, **how):
    rasterio = pytest.importorskip("rasterio")
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", height=pixels.shape[0], width=pixels.shape[1], count=pixels.shape[2], dtype="uint8", **how) as f:
        f.write(np.moveaxis(pixels, 2, 0))


@pytest.mark.parametrize("name", [None, "urn:ogc:def:crs:OGC:1.3:CRS84", "EPSG:32615"])
def test_two_towns_two_groups(tmp_path, name):
    rasterio = pytest.importorskip("rasterio")
    from rasterio.features import shapes
    from rasterio.warp import transform_geom
    rng, features, truth = np.random.default_rng(0), [], {}
    for town, east in (("north", 235000), ("south", 236000)):
        mask = np.kron(rng.integers(0, 3, (6, 9)), np.ones((11, 10), int)).astype(np.uint8)
        grid = dict(crs="EPSG:32615", transform=rasterio.transform.from_origin(east, 3278000, .2, .2))
        raster(tmp_path / f"own/{town}.tif", rng.integers(1, 255, (*mask.shape, 3), dtype=np.uint8), **grid)
        truth[town] = mask
        to = name if name and "32615" in name else "EPSG:4326"
        features += [{"type": "Feature", "properties": {"landuse": "abc"[int(v)]}, "geometry": transform_geom(grid["crs"], to, g, precision=12)}
                     for g, v in shapes(mask, transform=grid["transform"])]
    crs = {"crs": {"type": "name", "properties": {"name": name}}} if name else {}
    (tmp_path / "own/a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features} | crs))
    made = import_data(tmp_path / "own", tmp_path / "data", wanted="landuse", tile=64)
    folder = open_folder(tmp_path / "data")
    assert made.groups == 2 and set(folder.groups.values()) == {"north", "south"} and folder.taxonomy.names == ("a", "b", "c")
    for town, mask in truth.items():
        rows = [np.hstack([folder.mask(f"{town}_{r}_{c}") for c in range(2)]) for r in range(2)]
        assert np.array_equal(np.vstack(rows), mask)


def test_maps_without_rasterio_say_how_to_get_it(tmp_path, monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, "rasterio", None)
    put(tmp_path / "r.tif", np.zeros((3, 4, 3)))
    (tmp_path / "a.geojson").write_text(json.dumps(GEOJSON))
    with pytest.raises(AerialsegError, match=r"pip install .aerialseg\[maps\]"): read_source(tmp_path)


# ---- real pictures, where they are

@pytest.mark.skipif(not real_pictures("drone6").exists(), reason="needs the real pictures beside the checkout")
@pytest.mark.parametrize("to", list(WRITERS))
def test_drone_pictures_there_and_back(tmp_path, to):
    root, folder = real_pictures("drone6"), open_folder(real_pictures("drone6"))
    (tmp_path / "masks").mkdir()
    for i in folder.train[:12]: shutil.copy(folder.masks[i], tmp_path / "masks")
    write_annotations(tmp_path / "masks", root / "imgs/imgs", root / "classes.csv", to, tmp_path / "out", tolerance=0)
    made = open_folder(import_data(tmp_path / "out", tmp_path / "data", classes=root / "classes.csv").folder)
    assert len(made.train) == 12 and all(np.array_equal(made.mask(i), folder.mask(i)) for i in made.train)


@pytest.mark.skipif(not real_pictures("houston6").exists(), reason="needs the real pictures beside the checkout")
def test_a_real_geotiff_and_its_polygons(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    from rasterio.features import shapes
    root = real_pictures("houston6")
    names = open_folder(root).taxonomy.names
    mask = load_mask(root / "masks/masks/6893.png")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/6893.tif").symlink_to(root / "geotiff/6893.tif")
    with rasterio.open(root / "geotiff/6893.tif") as f: transform = f.transform
    features = [{"type": "Feature", "properties": {"class": names[int(v)]}, "geometry": g} for g, v in shapes(mask, transform=transform)]
    (tmp_path / "own/a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    made = import_data(tmp_path / "own", tmp_path / "data", classes=root / "classes.csv")
    folder = open_folder(made.folder)
    assert made.groups == 1 and len(folder.train) == 12 and "split=random" in "\n".join(made.lines())
    back = np.vstack([np.hstack([folder.mask(f"6893_{r}_{c}") for c in range(4)]) for r in range(3)])
    assert (back != mask).mean() < 1e-5                # corners in degrees are rounded in the sixteenth digit
    image = np.vstack([np.hstack([folder.image(f"6893_{r}_{c}") for c in range(4)]) for r in range(3)])
    with rasterio.open(root / "geotiff/6893.tif") as f: assert np.array_equal(image, np.moveaxis(f.read(), 0, 2))


# ---- the command line

def test_commands_refuse_in_a_sentence(aerialseg, masks, tmp_path):
    refused(aerialseg("import", "nowhere", "data"), "nowhere")
    refused(aerialseg("import", masks, "data", "--kind", "voc"), "voc", "labelme")
    refused(aerialseg("import", masks, "data", "--test-share", "2"), "test share")
    refused(aerialseg("annotations", masks / "masks", "--images", masks / "images", "--classes", masks / "classes.csv", "--to", "yolo", "--out", "o"), "yolo", "cvat")
    refused(aerialseg("annotations", masks / "masks", "--images", "gone", "--classes", masks / "classes.csv", "--out", "o"), "gone")
    assert not (tmp_path / "data").exists() and not (tmp_path / "o").exists()


def test_from_own_folder_to_corrected_predictions(aerialseg, scenes, tmp_path):
    for i in scenes.train:
        (tmp_path / "own/photos").mkdir(parents=True, exist_ok=True)
        (tmp_path / "own/masks").mkdir(exist_ok=True)
        shutil.copy(scenes.images[i], tmp_path / "own/photos")
        shutil.copy(scenes.masks[i], tmp_path / f"own/masks/{i}_mask.png")
    (tmp_path / f"own/masks/{scenes.train[0]}_mask.png").unlink()
    done = aerialseg("import", "own", "data/mine", "--classes", scenes.root / "classes.csv", "--test-share", ".2", "--link")
    assert done.returncode == 0 and "aerialseg run --data data/mine" in done.stdout and "1 pictures have no labels" in done.stdout, done.stderr
    assert "0 faults" in aerialseg("audit", "data/mine").stdout
    run = aerialseg("run", "--profile", "tiny", "--data", "data/mine", "--name", "mine", "--set", "arch=fpn", "--set", "decoder_channels=64,32", "--no-lessons", timeout=900)
    assert run.returncode == 0 and (tmp_path / "runs/mine/submission.csv").exists(), run.stderr
    assert aerialseg("predict", "runs/mine", "own/photos", "--out", "pred").returncode == 0
    for to in ("labelme", "cvat"):
        done = aerialseg("annotations", "pred", "--images", "own/photos", "--classes", "data/mine/classes.csv", "--to", to, "--out", f"correct/{to}", "--tolerance", "0")
        assert done.returncode == 0 and f"{len(scenes.train)} pictures" in done.stdout, done.stderr
        again = aerialseg("import", f"correct/{to}", f"data/{to}", "--classes", "data/mine/classes.csv")
        assert again.returncode == 0, again.stderr
        made = open_folder(tmp_path / f"data/{to}")
        assert all(np.array_equal(made.mask(i), load_mask(tmp_path / f"pred/{i}.png")) for i in scenes.train)
