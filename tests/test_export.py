"""A model that leaves the house: predicted without PyTorch, read by the model library alone, refused in one sentence where
it is broken, and small enough to install."""
import configparser
import importlib.metadata as installed
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
TRAINING = ("torch", "torchvision", "pandas", "scipy", "sklearn", "matplotlib", "cv2", "albumentations", "accelerate", "timm", "safetensors",
            "segmentation_models_pytorch", "papermill", "jinja2", "psutil", "onnx", "rasterio")


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):
    "A run with a network that is not trained but has opinions, tiles, eight looks, and thresholds."
    import torch
    from aerialseg.core import create_run, make_recipe, save_json
    from aerialseg.dataset import make_split
    from aerialseg.model import model_for, save_model
    torch.manual_seed(0)
    recipe = make_recipe("tiny", data=str(scenes.root), tile=64, overlap=16, scale=1.2, arch="fpn", decoder_channels=(64, 32))
    made = create_run(tmp_path_factory.mktemp("work") / "runs/mine", recipe)
    make_split(made)
    save_model(model_for(recipe, 12), made / "model", scenes.taxonomy, recipe)
    save_json({"temperature": 1.5, "presence": dict.fromkeys(scenes.taxonomy.names, 0.01)}, made / "postprocess.json")
    return made.folder


@pytest.fixture(scope="module")
def exported(run):
    "All its forms, by the real command."
    done = subprocess.run([sys.executable, "-c", "from aerialseg.cli import main; main()", "export", str(run), "--to", "onnx",
                           "--to", "torch", "--to", "hf", "--out", str(run.parent / "out"), "--license", "cc-by-4.0"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["run", "onnx", "torch", "hf"] and "validation frames" in done.stdout
    return run.parent / "out"


def without(packages, tmp_path, *args):
    "Run Python where some packages can't be imported."
    hide = f"""import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {packages!r}: raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Hide())
"""
    (tmp_path / "hide").mkdir(exist_ok=True)
    (tmp_path / "hide/sitecustomize.py").write_text(hide)
    env = {**os.environ, "PYTHONPATH": f"{tmp_path / 'hide'}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, *map(str, args)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)


def small_install(tmp_path, *args): return without(TRAINING, tmp_path, "-c", "from aerialseg.cli import main; main()", *args)


def test_predicts_like_the_run_where_only_the_small_install_is(aerialseg, run, exported, scenes, tmp_path):
    from aerialseg.folder import load_mask
    imgs = scenes.root / "imgs/imgs"
    done = small_install(tmp_path, "predict", exported / "onnx", imgs, "--out", "small", "--processes", 2)
    assert done.returncode == 0, done.stderr
    assert aerialseg("predict", run, imgs, "--out", "large").returncode == 0
    names = [p.stem for p in sorted(imgs.iterdir())]
    masks = [[load_mask(tmp_path / where / f"{n}.png") for n in names] for where in ("small", "large")]
    assert all((tmp_path / "small" / f"{n}_overlay.jpg").is_file() for n in names) and len(np.unique(masks)) > 2
    assert np.mean(np.array(masks[0]) == np.array(masks[1])) >= 0.999
    again = small_install(tmp_path, "predict", exported / "onnx", imgs, "--out", "small")
    assert f"0 masks in small; {len(names)} were finished" in again.stdout


def test_what_trains_is_asked_for_in_one_sentence(tmp_path, exported):
    for args in (("run", "--profile", "tiny"), ("doctor",), ("export", "runs/x"), ("predict", exported.parent / "mine", "a.jpg")):
        done = small_install(tmp_path, *args)
        said = done.stderr.strip().splitlines()[-1]
        assert done.returncode == 2 and 'pip install "aerialseg[train]"' in said and "Traceback" not in done.stderr, done.stderr
    assert small_install(tmp_path, "--help").returncode == small_install(tmp_path, "predict", "--help").returncode == 0


PICTURES = {"grey": ("L", "png"), "alpha": ("RGBA", "png"), "palette": ("P", "png"), "colour": ("RGB", "jpg"), "tiff": ("RGB", "tif"), "cmyk": ("CMYK", "jpg")}


@pytest.mark.parametrize("kind", PICTURES)
def test_any_picture_is_read_as_the_run_reads_it(exported, run, scenes, tmp_path, kind):
    from PIL import Image
    from aerialseg.folder import load_image
    from aerialseg.pictures import open_predictor
    mode, suffix = PICTURES[kind]
    exif = Image.Exif()
    exif[0x0112] = 6                                            # "turn me": pixels are taken as stored all the same
    Image.open(scenes.images[scenes.train[0]]).convert(mode).save(tmp_path / f"a.{suffix}", **({"exif": exif} if suffix == "jpg" else {}))
    image = load_image(tmp_path / f"a.{suffix}")
    (small, _), (large, _) = open_predictor(exported / "onnx"), open_predictor(run)
    assert small(image).shape == (64, 80) and (small(image) == large(image)).mean() > 0.995


def broken_model(folder): (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:1000])
def no_model(folder): (folder / "model.onnx").unlink()
def no_facts(folder): (folder / "model.json").unlink()
def broken_facts(folder): (folder / "model.json").write_text('{"taxonomy": ')
def list_of_facts(folder): (folder / "model.json").write_text("[1, 2]")
def endless_tile(folder): (folder / "model.json").write_text((folder / "model.json").read_text().replace('"tile": 64', '"tile": 1e300'))
def odd_colour(folder): (folder / "model.json").write_text((folder / "model.json").read_text().replace('"#', '"#zz', 1))


@pytest.mark.parametrize("harm, word", [(broken_model, "model.onnx"), (no_model, "model.onnx is missing"), (no_facts, "model.json is missing"),
                                        (broken_facts, "JSON"), (list_of_facts, "model.json"), (endless_tile, "tile"), (odd_colour, "model.json")])
def test_a_broken_export_is_one_sentence(exported, scenes, tmp_path, harm, word):
    shutil.copytree(exported / "onnx", tmp_path / "bad")
    harm(tmp_path / "bad")
    done = small_install(tmp_path, "predict", "bad", scenes.images[scenes.train[0]])
    assert done.returncode == 2 and word in done.stderr.strip().splitlines()[-1] and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "predictions").exists()


@pytest.mark.parametrize("args, word", [(("predict", "EXPORTED/onnx", "text.jpg"), "text.jpg"), (("predict", "EXPORTED/onnx", "deep.png"), "8 bits"),
                                        (("predict", "EXPORTED", "text.jpg"), "onnx"), (("predict", "EXPORTED/onnx", "none.jpg"), "none.jpg")])
def test_a_wrong_picture_or_folder_is_one_sentence(exported, tmp_path, args, word):
    from PIL import Image
    (tmp_path / "text.jpg").write_text("404")
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(tmp_path / "deep.png")
    done = small_install(tmp_path, *(str(a).replace("EXPORTED", str(exported)) for a in args))
    assert done.returncode == 2 and word in done.stderr.strip().splitlines()[-1] and "Traceback" not in done.stderr, done.stderr


def test_export_refuses_before_it_writes(aerialseg, run, exported, tmp_path):
    there = {p: p.stat().st_mtime_ns for p in exported.rglob("*")}
    for args, word in ((("--to", "tflite"), "onnx, torch, hf"), (("--out", exported), "exists already")):
        done = aerialseg("export", run, *args)
        assert done.returncode == 2 and word in done.stderr.strip().splitlines()[-1]
    assert there == {p: p.stat().st_mtime_ns for p in exported.rglob("*")} and not (tmp_path / "exports").exists()


def test_the_model_library_alone_reads_the_card_and_the_model(exported, run, scenes, tmp_path):
    "The lines on the card, run where aerialseg can't be imported; the same logits as the run's network."
    import torch
    import yaml
    from PIL import Image
    from aerialseg.model import load_model
    shutil.copytree(exported / "hf", tmp_path / "mine")
    card = (tmp_path / "mine/README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "cc-by-4.0" and head["library_name"] == "segmentation-models-pytorch" and "aerial" in head["tags"]
    assert "never evaluated" in card and str(scenes.root.parent) not in card
    Image.open(scenes.images[scenes.train[0]]).save(tmp_path / "photo.jpg", quality=95)
    code = re.search(r"```python\n(.*?)```", card, re.S)[1] + "\nnp.savez('out.npz', xb=xb.numpy(), logits=model(xb).detach().numpy(), ids=ids)"
    done = without(("aerialseg",), tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    out, (model, *_) = np.load(tmp_path / "out.npz"), load_model(run / "model")
    with torch.inference_mode(): expected = model(torch.from_numpy(out["xb"])).numpy()
    assert np.abs(expected - out["logits"]).max() <= 1e-6 * np.abs(expected).max() and (out["ids"] == expected[0].argmax(0)).all()


def closure(names):
    "Distributions and all that they need, by this environment's own metadata."
    seen, todo = {}, list(names)
    while todo:
        name = re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", todo.pop())[0]).lower()
        if name in seen: continue
        try: seen[name] = installed.distribution(name)
        except installed.PackageNotFoundError: continue          # for another system or Python
        todo += [r for r in seen[name].requires or [] if "extra ==" not in r]
    return seen


def test_the_small_install_is_small():
    ini = configparser.ConfigParser(delimiters=["="])
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    needed = closure(ini["DEFAULT"]["requirements"].split())
    assert {"numpy", "pillow", "onnxruntime"} <= set(needed) and not {"torch", "pandas", "scipy", "opencv-python-headless"} & set(needed)
    size = sum(f.size or 0 for d in needed.values() for f in d.files or [])      # without Python's caches
    size += sum(p.stat().st_size for p in ROOT.glob("aerialseg/**/*.py"))
    assert 50e6 < size <= 200e6, f"{size / 1e6:.0f} MB"
