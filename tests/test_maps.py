"Maps by the real command: the ground stays where it is, crashes cost a unit, bounded memory, and other people's tools read the results."
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

rasterio = pytest.importorskip("rasterio")
REAL = Path(__file__).resolve().parents[2] / "shared" / "real"
AERIALSEG = str(Path(sys.executable).parent / "aerialseg")


def small_run(folder, taxonomy, **settings):
    "A run folder with an untrained network, which maps in seconds."
    import torch
    from aerialseg.core import create_run, make_recipe
    from aerialseg.model import SmallUNet, save_model
    torch.manual_seed(0)
    run = create_run(folder, make_recipe("tiny", arch="small_unet", tta="none", tile=96, overlap=32, **settings))
    save_model(SmallUNet(taxonomy.n_classes), run / "model", taxonomy, run.recipe)
    return run.folder


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    from aerialseg.core import LANDCOVER12
    return small_run(tmp_path_factory.mktemp("work") / "run", LANDCOVER12)


@pytest.fixture(scope="module")
def ortho(tmp_path_factory):
    from aerialseg.maps.rasters import draw_ortho
    path = tmp_path_factory.mktemp("ground") / "place.tif"
    draw_ortho(path, size_m=150, sports=("tennis_court",))
    return path


def files(folder): return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix in (".tif", ".csv", ".xml")}


def test_the_map_lies_where_the_raster_lies(aerialseg, untrained, ortho, tmp_path):
    done = aerialseg("map", untrained, ortho, "--layer", "confidence", "--layer", "probabilities", "--polygons", "geojson")
    assert done.returncode == 0, done.stderr
    with rasterio.open(ortho) as a:
        there, place = a.dataset_mask() > 0, (a.crs, a.transform, a.shape)
    for layer in ("classes", "confidence", "probabilities"):
        with rasterio.open(tmp_path / f"maps/place_{layer}.tif") as b:
            assert (b.crs, b.transform, b.shape) == place and b.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and b.overviews(1)
            assert np.array_equal(b.read(1) != 255, there)
    with rasterio.open(tmp_path / "maps/place_classes.tif") as c, rasterio.open(tmp_path / "maps/place_probabilities.tif") as p:
        ids, probs = c.read(1), p.read()
    best = np.take_along_axis(probs, np.minimum(ids, 11)[None].astype(int), 0)[0]
    assert (best.astype(int) >= probs.max(0).astype(int) - 1)[there].all()           # bytes are rounded
    areas = json.loads((tmp_path / "maps/place.geojson").read_text())["features"]
    assert all(8.9999 < x < 9.01 and 47 < y < 48 for f in areas for x, y in f["geometry"]["coordinates"][0])
    assert {"class", "class_id", "area_m2", "confidence", "colour"} <= set(areas[0]["properties"])


def test_a_killed_job_goes_on_and_ends_with_the_same_bytes(aerialseg, untrained, ortho, tmp_path):
    args = ["map", str(untrained), str(ortho), "--gsd", ".1", "--unit", "300", "--polygons", "none", "--layer", "uncertainty"]
    assert aerialseg(*args, "--out", "straight").returncode == 0
    parts = tmp_path / "cut/.place.map/parts"
    for number in (signal.SIGKILL, signal.SIGINT):
        job = subprocess.Popen([AERIALSEG, *args, "--out", "cut", "--resume"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        before = len(list(parts.glob("*"))) if parts.exists() else 0
        while job.poll() is None and (not parts.exists() or len(list(parts.glob("[0-9]*"))) <= before): time.sleep(.02)
        assert job.poll() is None, "the job ended before it could be stopped: make the raster larger"
        job.send_signal(number)
        said = job.communicate()[1]
        assert job.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}[number]
    assert "--resume goes on" in said and "Traceback" not in said
    refused = aerialseg(*args, "--out", "cut")
    assert refused.returncode == 2 and "was begun before" in refused.stderr
    other = aerialseg(*args, "--out", "cut", "--resume", "--tta", "flip")
    assert other.returncode == 2 and "other options" in other.stderr
    assert aerialseg(*args, "--out", "cut", "--resume").returncode == 0
    assert files(tmp_path / "cut") == files(tmp_path / "straight") and not (tmp_path / "cut/.place.map").exists()


def test_workers_and_a_cluster_write_the_bytes_of_one_process(aerialseg, untrained, ortho, tmp_path):
    args = ["map", untrained, ortho, "--gsd", ".1", "--unit", "300", "--polygons", "none"]
    assert aerialseg(*args, "--out", "one").returncode == 0
    two = aerialseg(*args, "--out", "two", "--processes", 2)
    assert two.returncode == 0 and files(tmp_path / "two") == files(tmp_path / "one"), two.stderr
    where = tmp_path / "scheduler.json"
    start = lambda *a: subprocess.Popen([sys.executable, "-m", "distributed.cli." + a[0], *a[1:]], cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    processes = [start("dask_scheduler", "--scheduler-file", str(where), "--port", "0", "--host", "127.0.0.1", "--no-dashboard")]
    try:
        for _ in range(600):
            if where.exists(): break
            time.sleep(.05)
        processes += [start("dask_worker", "--scheduler-file", str(where), "--nthreads", "1", "--no-dashboard") for _ in range(2)]
        address = json.loads(where.read_text())["address"]
        far = None
        for _ in range(20):                                     # until the workers have come
            far = aerialseg(*args, "--out", "far", "--cluster", address)
            if "has no workers" not in far.stderr: break
            shutil.rmtree(tmp_path / "far", ignore_errors=True)
            time.sleep(1)
        assert far.returncode == 0 and files(tmp_path / "far") == files(tmp_path / "one"), far.stderr
    finally:
        for p in processes: p.kill()
        for p in processes: p.wait()


@pytest.mark.parametrize("data, options, words", [
    (None, (), "does not exist"), (b"", (), "gdalinfo"), (b"II*\0" + b"\xff" * 64, (), "gdalinfo"),
    ("place", ("--bands", "1,2"), "3 numbers"), ("place", ("--bands", "1,2,9"), "bands 1 to 4"), ("place", ("--values", "a,b"), "2 numbers"),
    ("place", ("--gsd", "0"), "above 0"), ("place", ("--gsd", "nan"), "above 0"), ("place", ("--gsd", "0.001"), "too coarse"),
    ("place", ("--overlap", "900"), "smaller than the tile"), ("place", ("--tta", "all"), "no tta 'all'"), ("place", ("--blend", "box"), "no blend"),
    ("place", ("--layer", "heat"), "no layer 'heat'"), ("place", ("--polygons", "shp"), "no kind of polygons"),
    ("place", ("--cluster", "tcp://127.0.0.1:1"), "no dask scheduler")])
def test_what_can_be_mended_ends_in_one_sentence(aerialseg, untrained, ortho, tmp_path, data, options, words):
    raster = ortho if data == "place" else tmp_path / "x.tif"
    if isinstance(data, bytes): raster.write_bytes(data)
    done = aerialseg("map", untrained, raster, *options)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and words in last and last.startswith("aerialseg: ") and "Traceback" not in done.stderr, done.stderr
    assert not list(tmp_path.rglob("*_classes.tif"))


def test_strange_rasters_are_mapped(aerialseg, untrained, tmp_path):
    "One band, floats with NaN, one row, one pixel, rotated, without a place on earth, south up."
    grid, rng = rasterio.transform.from_origin(500_000, 5_316_000, .25, .25), np.random.default_rng(0)
    cases = {"grey": ((1, 70, 90), "uint8", grid), "floats": ((3, 70, 90), "float32", grid), "row": ((3, 1, 300), "uint8", grid), "pixel": ((3, 1, 1), "uint8", grid),
             "rotated": ((3, 70, 90), "uint8", grid @ rasterio.Affine.rotation(30)), "nowhere": ((3, 70, 90), "uint8", rasterio.Affine.identity()),
             "south_up": ((3, 70, 90), "uint8", rasterio.Affine(.25, 0, 500_000, 0, .25, 5_316_000))}
    (tmp_path / "in").mkdir()
    for name, (shape, kind, place) in cases.items():
        x = rng.integers(0, 255, shape).astype(kind)
        if kind == "float32": x[:, :20] = np.nan
        crs = None if name == "nowhere" else "EPSG:32632"
        with rasterio.open(tmp_path / f"in/{name}.tif", "w", driver="GTiff", count=shape[0], height=shape[1], width=shape[2], dtype=kind, crs=crs, transform=place) as ds: ds.write(x)
    done = aerialseg("map", untrained, "in")
    assert done.returncode == 0, done.stderr
    for name, (shape, kind, place) in cases.items():
        with rasterio.open(tmp_path / f"maps/{name}_classes.tif") as ds:
            assert ds.shape == shape[1:] and ds.transform.almost_equals(place), name
            assert (ds.read(1)[:20] == 255).all() == (name == "floats"), name


@pytest.mark.parametrize("seed", range(4))
def test_areas_found_in_blocks_are_those_found_at_once(seed):
    "Random maps: as many areas, the same pixels in each, valid, and still a coverage, wherever the blocks lie."
    import cv2
    import shapely
    from aerialseg.maps.polygons import find_areas
    rng = np.random.default_rng(seed)
    for _ in range(12):
        h, w, n = *rng.integers(20, 160, 2), rng.integers(2, 6)
        smooth = lambda sigma: cv2.GaussianBlur(rng.standard_normal((h, w)).astype(np.float32), (0, 0), sigma)
        ids = np.stack([smooth(rng.uniform(.6, 4)) for _ in range(n)]).argmax(0).astype(np.uint8)
        if rng.random() < .5: ids[smooth(6) > .06] = 255
        sure, tolerance = rng.integers(0, 254, (h, w)).astype(np.uint8), rng.choice([0, .5, 1.5, 4])
        read = lambda top, left, below, right: (ids[top:below, left:right], sure[top:below, left:right])
        whole, parts = find_areas(read, h, w, tolerance), find_areas(read, h, w, tolerance, int(rng.integers(9, 60)))
        assert np.array_equal(np.bincount(whole[1]), np.bincount(parts[1])) and np.allclose(np.sort(whole[2]), np.sort(parts[2]))
        for polygons, kinds, _ in (whole, parts):
            assert shapely.coverage_is_valid(polygons) and shapely.is_valid(polygons).all()
            assert shapely.area(polygons).sum() == pytest.approx((ids != 255).sum(), rel=.02 + .02 * tolerance)
        if not tolerance: assert all(shapely.area(p[k == c]).sum() == (ids == c).sum() for p, k, _ in (whole, parts) for c in range(n))


def test_memory_does_not_grow_with_the_raster(untrained, tmp_path):
    "Four times the pixels, hardly more memory: what counts is a unit."
    code = """
import resource, sys, numpy as np, rasterio
from pathlib import Path
from aerialseg.maps.jobs import MapOptions, map_raster
out, n = Path(sys.argv[2]), int(sys.argv[3])
tile = np.random.default_rng(0).integers(0, 255, (3, 512, n), dtype=np.uint8)
with rasterio.open(out / f"{n}.tif", "w", driver="GTiff", count=3, height=n, width=n, dtype="uint8", tiled=True, crs="EPSG:32632",
                   transform=rasterio.transform.from_origin(5e5, 5.3e6, .1, .1)) as ds:
    for y in range(0, n, 512): ds.write(tile, window=rasterio.windows.Window(0, y, n, 512))
map_raster(Path(sys.argv[1]), str(out / f"{n}.tif"), out, str(n), MapOptions(polygons="", gsd_m=.4, tile=256, overlap=32, unit=512), say=lambda line: None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    peak = [int(subprocess.run([sys.executable, "-c", code, str(untrained), str(tmp_path), str(n)], capture_output=True, text=True, check=True).stdout) for n in (4096, 8192)]
    assert peak[1] < peak[0] + 100, f"{peak} MB for 17 and 67 megapixels"


@pytest.mark.skipif(not shutil.which("gdalinfo"), reason="gdalinfo and ogrinfo are not here: sudo apt install gdal-bin")
def test_gdal_reads_everything(aerialseg, untrained, ortho, tmp_path):
    from aerialseg.core import LANDCOVER12
    assert aerialseg("map", untrained, ortho, "--layer", "confidence").returncode == 0
    info = lambda *a: subprocess.run(a, capture_output=True, text=True, check=True, cwd=tmp_path / "maps")
    said = info("gdalinfo", "-json", "place_classes.tif")
    band = json.loads(said.stdout)["bands"][0]
    assert band["colorInterpretation"] == "Palette" and band["noDataValue"] == 255 and band["colorTable"]["entries"][2][:3] == LANDCOVER12.palette[2].tolist() and len(band["overviews"]) >= 1
    assert "building" in info("gdalinfo", "place_classes.tif").stdout and not said.stderr
    assert json.loads(info("gdalinfo", "-json", "place_confidence.tif").stdout)["bands"][0]["scale"] == pytest.approx(1 / 254)
    areas = info("ogrinfo", "-so", "place.gpkg", "place")
    assert "Polygon" in areas.stdout and "area_m2: Real" in areas.stdout and "UTM zone 32N" in areas.stdout and not areas.stderr
    where = info("gdallocationinfo", "-valonly", "-geoloc", "place_classes.tif", "500100", "5315900").stdout.strip()
    with rasterio.open(tmp_path / "maps/place_classes.tif") as ds: assert int(where) == ds.read(1)[400, 400]


QGIS = shutil.which("qgis_process.bin") or shutil.which("qgis_process")       # Debian's wrapper adds an option that the program does not know


@pytest.mark.skipif(not QGIS, reason="qgis_process is not here: sudo apt install qgis")
def test_qgis_reads_classes_and_polygons(aerialseg, untrained, ortho, tmp_path):
    assert aerialseg("map", untrained, ortho).returncode == 0
    def qgis(algorithm, *args):
        quiet = {"QT_QPA_PLATFORM": "offscreen", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}          # with its own Python, not ours
        done = subprocess.run([QGIS, "run", algorithm, "--", *args], capture_output=True, text=True, cwd=tmp_path / "maps", env=quiet)
        assert done.returncode == 0, done.stderr
        return dict(line.split(":\t", 1) for line in done.stdout.partition("Results")[2].splitlines() if ":\t" in line)
    seen = qgis("native:rasterlayeruniquevaluesreport", "INPUT=place_classes.tif", "BAND=1")
    with rasterio.open(tmp_path / "maps/place_classes.tif") as ds: ids = ds.read(1)
    assert (int(seen["TOTAL_PIXEL_COUNT"]), int(seen["NODATA_PIXEL_COUNT"])) == (ids.size, (ids == 255).sum()) and seen["CRS_AUTHID"] == "EPSG:32632"
    valid = qgis("qgis:checkvalidity", "INPUT_LAYER=place.gpkg", "METHOD=2", "VALID_OUTPUT=valid.gpkg")
    assert int(valid["INVALID_COUNT"]) == 0 and int(valid["VALID_COUNT"]) > 5


@pytest.mark.skipif(not REAL.exists(), reason="the real pictures are not here")
def test_real_geotiffs_in_degrees(aerialseg, tmp_path):
    from aerialseg.folder import open_folder
    run = small_run(tmp_path / "run", open_folder(REAL / "houston6").taxonomy)
    done = aerialseg("map", run, REAL / "houston6/geotiff", "--gsd", ".08")
    assert done.returncode == 0, done.stderr
    import geopandas as gpd
    for path in sorted((REAL / "houston6/geotiff").glob("*.tif")):
        with rasterio.open(path) as a, rasterio.open(tmp_path / f"maps/{path.stem}_classes.tif") as b:
            assert (a.crs, a.transform, a.shape) == (b.crs, b.transform, b.shape) and b.read(1).max() < 6
            size = (a.bounds.right - a.bounds.left) * np.cos(np.radians(a.bounds.top)) * (a.bounds.top - a.bounds.bottom) * 111_320**2
        areas = gpd.read_file(tmp_path / f"maps/{path.stem}.gpkg")
        assert areas.area_m2.sum() == pytest.approx(size, rel=.01)            # a degree is 111.3 km, more or less
