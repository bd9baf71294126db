"""Real pictures mapped: Houston's georeferenced frames by a network of the other frames, and a mosaic of drone6. Writes bench/real_maps.csv.

    python bench/real_maps.py        needs the real pictures beside the checkout (../shared/real)

Each map is scored against the masks, beside the floor (the commonest class everywhere) and the same network's prediction of each
picture by itself.
"""
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio

from aerialseg.core import create_run, load_table, make_recipe, save_table
from aerialseg.dataset import make_split
from aerialseg.engine import with_engine
from aerialseg.evaluation import evaluate, final_predict
from aerialseg.folder import open_folder
from aerialseg.maps.jobs import MapOptions, map_raster
from aerialseg.maps.rasters import open_raster
from aerialseg.metrics import count_table, miou
from aerialseg.model import load_model
from aerialseg.study import real_pictures
from aerialseg.training import train

SETTINGS = dict(arch="segformer", decoder_channels=(64,), rare_share=.3, ema=.97, device="cpu")


def trained(folder: Path, **settings):
    "A run, trained and evaluated."
    run = create_run(folder, make_recipe("demo", **SETTINGS | settings))
    make_split(run)
    train(run)
    evaluate(run)
    return run


def scores(run, found: dict, folder, ids: list) -> dict: # found: ImageID: (H,W) ids
    "mIoU of maps, of the network's answer for every picture by itself, and of the commonest class."
    n, masks = folder.taxonomy.n_classes, {i: folder.mask(i) for i in ids}
    model = with_engine(load_model(run / "model")[0], run.recipe, "cpu")
    alone = {i: final_predict(model, folder.image(i), run.recipe, {}) for i in ids}
    common = int(sum(np.bincount(m[m < n], minlength=n) for m in masks.values()).argmax())
    score = lambda preds: miou(np.stack([count_table(preds[i], masks[i], n) for i in ids]))
    return dict(pictures=len(ids), map_miou=score(found), picture_miou=score(alone), floor=score({i: np.full(m.shape, common, np.uint8) for i, m in masks.items()}),
                same_labels=float(np.mean([(found[i] == alone[i]).mean() for i in ids])))


def houston(tmp: Path) -> dict:
    "Train without the three frames that are GeoTIFFs and those that show the same ground; map these."
    source = real_pictures("houston6")
    rasters = {p.stem: p for p in sorted((source / "geotiff").glob("*.tif"))}
    shutil.copytree(source, tmp / "data", ignore=shutil.ignore_patterns("geotiff"))
    ids = load_table(source / "train.csv").ImageID
    save_table(pd.DataFrame({"ImageID": ids[~ids.isin([*rasters, "6908"])]}), tmp / "data/train.csv")
    run = trained(tmp / "run", data=str(tmp / "data"), scale=.125, height=192, width=192, epochs=6, epoch_images=200, valid_every=6, valid_share=.15)
    gsd = max(open_raster(next(iter(rasters.values()))).gsd_m) / run.recipe.scale           # all were flown at about one height
    found = {}
    for name, path in rasters.items():
        made = map_raster(run.folder, str(path), tmp / "maps", name, MapOptions(gsd_m=gsd, tta="d4"))
        with rasterio.open(made["classes"]) as ds, rasterio.open(path) as there:
            assert ds.transform == there.transform and ds.crs == there.crs
            found[name] = ds.read(1)
    return dict(data="houston6, GeoTIFFs in degrees") | scores(run, found, open_folder(source), list(rasters))


def drone(tmp: Path) -> dict:
    "Validation chips side by side as one raster of 0.1 m."
    run = trained(tmp / "run", data=str(real_pictures("drone6")), epochs=4, epoch_images=328, valid_every=4)
    folder, split = open_folder(run.data), load_table(run / "split.csv")
    ids = list(split.ImageID[split.split == "valid"])[:36]
    side = int(len(ids) ** .5)
    ids = ids[:side * side]
    mosaic = np.concatenate([np.concatenate([folder.image(i) for i in ids[k:k + side]], 1) for k in range(0, len(ids), side)])
    with rasterio.open(tmp / "mosaic.tif", "w", driver="GTiff", count=3, height=len(mosaic), width=mosaic.shape[1], dtype="uint8", crs="EPSG:32632",
                       transform=rasterio.transform.from_origin(5e5, 5.3e6, .1, .1), photometric="rgb") as ds: ds.write(mosaic.transpose(2, 0, 1))
    made = map_raster(run.folder, str(tmp / "mosaic.tif"), tmp / "maps", "mosaic", MapOptions(gsd_m=.1, tta="d4"))
    with rasterio.open(made["classes"]) as ds: ids_map = ds.read(1)
    found = {i: ids_map[300 * (k // side):300 * (k // side + 1), 300 * (k % side):300 * (k % side + 1)] for k, i in enumerate(ids)}
    return dict(data="drone6, mosaic of chips") | scores(run, found, folder, ids)


if __name__ == "__main__":
    rows = []
    for work in (houston, drone):
        with tempfile.TemporaryDirectory() as tmp: rows.append(work(Path(tmp)))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    table = pd.DataFrame(rows).assign(commit=commit).round(4)
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False)
    print(table.T.to_string(header=False))
