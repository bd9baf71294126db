"The way to the real run: Kaggle's client (a stand-in that answers as the real one), archives, attached data, the doctor, the files for Kaggle and SLURM."
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from aerialseg.folder import open_folder

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"      # real id lists and frames, where they are
SLUG = "opencv-pytorch-segmentation-project-round2"

# words and exit codes of kaggle 2.2.5 (cli.py, format_http_error, print_auth_help)
CLIENT = r'''#!/bin/sh
echo "$@" >> "$CALLS"
[ "$1 $2 $3 $5" = "competitions download -c -p" ] || exit 9
forbidden="You don't have access to this resource.
If this is a competition, you may need to accept its rules first at
  https://www.kaggle.com/competitions/<competition>/rules"
case "$STAND_IN" in
  403) printf '403 Client Error: Forbidden for url: https://api.kaggle.com/v1/competitions.CompetitionApiService/DownloadDataFiles\n\n%s\n' "$forbidden" >&2; exit 1;;
  404) echo "404 Client Error: Not Found for url: https://api.kaggle.com/v1/" >&2; exit 1;;
  login) printf 'Recommended: log in with OAuth via a web-based authorization flow.\n    kaggle auth login\n'; exit 1;;
  crash) echo "ConnectionError: no route to host" >&2; exit 1;;
  cut) head -c 5000 "$ARCHIVE" > "$6/$4.zip";;
  *) cp "$ARCHIVE" "$6/$4.zip";;
esac
'''


@pytest.fixture
def kaggle(tmp_path, monkeypatch, scenes):
    "The stand-in on the path, a token that nobody may read out, an archive of scenes; returns (behave, calls)."
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/kaggle").write_text(CLIENT)
    (tmp_path / "bin/kaggle").chmod(0o755)
    (tmp_path / "home/.kaggle").mkdir(parents=True)
    (tmp_path / "home/.kaggle/access_token").write_text("SECRET-TOKEN")
    (tmp_path / "home/.kaggle/access_token").chmod(0o600)
    for name in ("KAGGLE_CONFIG_DIR", "KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "AERIALSEG_INPUT"): monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("ARCHIVE", str(pack(tmp_path / "good.zip", scenes.root)))
    monkeypatch.chdir(tmp_path)
    def calls(): return (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
    return lambda how: monkeypatch.setenv("STAND_IN", how), calls


def pack(path: Path, root: Path, top: str = "", more=(), without: str = "") -> Path:
    "A zip archive of a folder."
    with zipfile.ZipFile(path, "w") as z:
        for f in sorted(p for p in root.rglob("*") if p.is_file() and not (without and without in p.name)):
            z.write(f, top + str(f.relative_to(root)))
        for name, text in more: z.writestr(name, text)
    return path


@pytest.fixture
def call(capfd):
    "Call the command in this process: (exit code, what it said)."
    from aerialseg.cli import main
    def command(*args):
        code = 0
        try: main([str(a) for a in args])
        except SystemExit as e: code = e.code or 0
        said = "".join(capfd.readouterr())
        assert "Traceback" not in said and "SECRET" not in said
        return code, said
    return command


@pytest.mark.parametrize("how, words", [
    ("403", [f"https://www.kaggle.com/competitions/{SLUG}/rules", "accept the rules"]),
    ("404", ["no competition", "open-cv-py-torch-segmentation-project-round-3"]),
    ("login", ["https://www.kaggle.com/settings/api", "access_token"]),
    ("crash", ["no route to host", "the same command"])])
def test_a_refusal_is_one_sentence_with_the_way_out(kaggle, call, how, words, tmp_path):
    behave, calls = kaggle
    behave(how)
    code, said = call("download")
    last = said.strip().splitlines()[-1]
    assert code == 2 and last.startswith("aerialseg: ")
    for w in words: assert w in last
    assert not (tmp_path / "data/kaggle").exists() and calls() == [f"competitions download -c {SLUG} -p data/.kaggle.download"]


def test_without_the_client(kaggle, call, tmp_path, monkeypatch):
    monkeypatch.setattr("aerialseg.real.kaggle_data.kaggle_client", lambda: None)
    code, said = call("download")
    assert code == 2 and "pip install kaggle" in said and "access_token" in said


def test_cut_short_then_whole_then_there(kaggle, call, scenes, tmp_path):
    behave, calls = kaggle
    behave("cut")
    code, said = call("download", "--competition", "opencv-pytorch-course-segmentation")
    assert code == 2 and "cut short" in said and not (tmp_path / "data/kaggle").exists()
    assert (tmp_path / "data/.kaggle.download/opencv-pytorch-course-segmentation.zip").stat().st_size == 5000      # stays, for the client to go on with
    behave("fine")
    code, said = call("download", "--competition", "opencv-pytorch-course-segmentation")
    assert code == 0 and f"{len(scenes.train)} training and {len(scenes.test)} test frames" in said and "kaggle competitions submit" in said
    made = open_folder(tmp_path / "data/kaggle")
    assert made.train == scenes.train and set(made.images) == set(scenes.images)
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == [".kaggle.lock", "kaggle"]
    behave("403")
    assert call("download")[0] == 0 and len(calls()) == 2                  # it is there: nobody is asked


def test_a_whole_archive_is_not_fetched_again(kaggle, call, tmp_path, scenes):
    behave, calls = kaggle
    behave("403")
    (tmp_path / "data/.kaggle.download").mkdir(parents=True)
    pack(tmp_path / f"data/.kaggle.download/{SLUG}.zip", scenes.root, top="some/folder/")      # and the data may lie deeper in it
    assert call("download")[0] == 0 and calls() == [] and open_folder(tmp_path / "data/kaggle").train == scenes.train


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/aerialseg-evil.txt", "imgs/../../evil.txt", "..\\evil.txt", "C:/evil.txt"])
def test_an_archive_can_not_write_outside(kaggle, call, scenes, tmp_path, monkeypatch, name):
    kaggle[0]("fine")
    monkeypatch.setenv("ARCHIVE", str(pack(tmp_path / "evil.zip", scenes.root, more=[(name, "evil")])))
    code, said = call("download")
    assert code == 2 and "would leave its folder" in said and not list(tmp_path.rglob("*evil.txt")) and not (tmp_path / "data/kaggle").exists()


def test_a_lacking_archive_makes_no_data_folder(kaggle, call, scenes, tmp_path, monkeypatch):
    kaggle[0]("fine")
    monkeypatch.setenv("ARCHIVE", str(pack(tmp_path / "lacking.zip", scenes.root, without=scenes.test[0])))
    code, said = call("download")
    assert code == 2 and scenes.test[0] in said and not (tmp_path / "data/kaggle").exists()
    monkeypatch.setenv("ARCHIVE", str(pack(tmp_path / "other.zip", ROOT / "bench")))
    (tmp_path / f"data/.kaggle.download/{SLUG}.zip").unlink()
    code, said = call("download")
    assert code == 2 and "right competition" in said and [p.name for p in (tmp_path / "data").iterdir() if p.name.endswith(".tmp")] == []


def test_attached_data_are_found_by_source_and_best_alone(scenes, tmp_path, monkeypatch):
    from aerialseg.core import AerialsegError
    from aerialseg.places import find_data
    from aerialseg.runner import asked_for, data_for
    root = tmp_path / "input"
    shutil.copytree(scenes.root, root / "competitions" / SLUG)
    monkeypatch.setenv("AERIALSEG_INPUT", str(root))
    said = []
    for profile in ("source", "best"):
        found = data_for(profile, "", {}, said.append)
        assert found == str(root / "competitions" / SLUG) and asked_for(profile, found, profile, {}, tmp_path).recipe.data == found
    assert len(said) == 2 and data_for("demo", "", {}) == "" and data_for("best", "", {"data": "x"}) == ""
    shutil.copytree(scenes.root, root / "another")
    with pytest.raises(AerialsegError, match="2 data folders.*--data"): find_data()
    monkeypatch.setenv("AERIALSEG_INPUT", "")
    assert find_data() is None


def marks(said: str) -> dict[str, str]: # what: mark
    return {line[4:32].strip(): line[2] for line in said.splitlines() if line[:2] == "  " and line[2:3] in "✓✗–"}


def test_the_doctor_sees_each_fault(kaggle, call, scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    code, said = call("doctor")
    assert code == 0 and marks(said)["data"] == "–" and marks(said)["client"] == marks(said)["token"] == "✓"
    (tmp_path / "home/.kaggle/access_token").chmod(0o644)
    code, said = call("doctor")
    assert code == 2 and marks(said)["token"] == "✗" and "chmod 600" in said
    (tmp_path / "home/.kaggle/access_token").unlink()
    code, said = call("doctor", "--for", "best", "--set", "device=cpu", "--set", "arch=unet")
    assert code == 2 and [marks(said)[w] for w in ("data", "token", "device", "weights")] == ["✗"] * 4 and "aerialseg download" in said
    code, said = call("doctor", "--for", "tiny", "--data", scenes.root)
    assert code == 0 and set(marks(said).values()) == {"✓", "–"} and "memory for a step" in said


def test_the_doctor_wants_data_that_are_whole(call, broken):
    broken.images[broken.test[0]].unlink()
    code, said = call("doctor", "--data", broken.root)
    assert code == 2 and broken.test[0] in said and marks(said)["data"] == "✗"


def test_memory_that_a_card_has_not():
    from aerialseg.core import make_recipe
    from aerialseg.doctor import memory_finding
    best = make_recipe("best")
    mark, _, said = memory_finding(best, 6, True, "bf16")
    assert mark == "✗" and "checkpointing=true" in said


def test_the_kernel_folder_is_what_the_client_reads(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = call("kernel", "--user", "somebody")
    assert code == 2 and "make release" in said and not (tmp_path / "kernel").exists()
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/aerialseg-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
    assert call("kernel", "--user", "../up")[0] == 2
    code, said = call("kernel", "--user", "somebody", "--set", "epochs=3", "--hours", 5)
    assert code == 0 and "kaggle kernels push -p kernel/notebook" in said
    meta = json.loads((tmp_path / "kernel/notebook/kernel-metadata.json").read_text())
    # the names that kernels_push of kaggle 2.2.5 reads
    known = {"id", "id_no", "title", "code_file", "language", "kernel_type", "is_private", "enable_gpu", "enable_tpu", "enable_internet", "machine_shape",
             "dataset_sources", "competition_sources", "kernel_sources", "model_sources", "keywords", "docker_image", "docker_image_pinning_type"}
    assert set(meta) <= known and len(meta["title"]) >= 5 and meta["id"] == "somebody/" + meta["title"].lower().replace(" ", "-")
    assert meta["competition_sources"] == [SLUG] and (tmp_path / "kernel/notebook" / meta["code_file"]).exists()
    parameters = json.loads((tmp_path / "kernel/notebook/notebook.ipynb").read_text())["cells"][1]
    assert parameters["metadata"]["tags"] == ["parameters"] and "['epochs=3']" in "".join(parameters["source"])
    assert json.loads((tmp_path / "kernel/wheel/dataset-metadata.json").read_text())["id"] in meta["dataset_sources"]
    assert call("kernel", "--user", "somebody")[0] == 2                  # nothing is overwritten
    assert call("kernel", "--for", "colab", "--out", "colab")[0] == 0 and not (tmp_path / "colab/notebook/kernel-metadata.json").exists()


def test_the_job_is_a_shell_script_for_slurm(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("slurm", "--data", "data/my kaggle", "--set", "epochs=3", "--setup", "source .venv/bin/activate")[0] == 0
    script = (tmp_path / "job.sh").read_text()
    assert subprocess.run(["bash", "-n", "job.sh"]).returncode == 0 and "--data 'data/my kaggle' --set epochs=3 --resume &" in script
    assert call("slurm")[0] == 2 and call("slurm", "--set", "epoch=3", "--out", "b.sh")[0] == 2 and not (tmp_path / "b.sh").exists()


def test_a_submission_is_graded_where_the_masks_are_known(call, scenes, tmp_path, monkeypatch):
    import pandas as pd
    from aerialseg.rle import label_map_to_rles
    from aerialseg.submission import expected_frames
    root = tmp_path / "known"
    shutil.copytree(scenes.root, root)
    truth = {i: scenes.mask(scenes.train[0]) for i in scenes.test}
    rows = [(f"{i}_{c}", rle) for i in expected_frames(scenes) for c, rle in enumerate(label_map_to_rles(truth[i], 12))]
    pd.DataFrame(rows, columns=["ImageID", "EncodedPixels"]).to_csv(tmp_path / "s.csv", index=False)
    code, said = call("check", tmp_path / "s.csv", "--data", root, "--score")
    assert code == 2 and "no masks of" in said
    for i in scenes.test: shutil.copyfile(scenes.masks[scenes.train[0]], root / f"masks/masks/{i}.png")
    code, said = call("check", tmp_path / "s.csv", "--data", root, "--score")
    assert code == 0 and "mean_dice    1.0000" in said and "miou" in said


@pytest.mark.skipif(not (SHARED / "kaggle/train.csv").exists(), reason="the real id lists are not here")
def test_the_real_lists_are_known():
    from aerialseg.places import THEIR_TRAIN, ids_print
    lists = {n: (SHARED / f"kaggle/{n}.csv").read_text().split()[1:] for n in ("train", "test")}
    assert (len(lists["train"]), len(lists["test"])) == (2621, 648) and ids_print(lists["train"]) == THEIR_TRAIN != ids_print(lists["test"])


@pytest.mark.skipif(not (SHARED / "real/aeroscapes9").exists(), reason="the real frames are not here")
def test_real_frames_come_through_both_layouts(kaggle, call, tmp_path, monkeypatch):
    from aerialseg.places import find_data, missing_parts
    kaggle[0]("fine")
    real = open_folder(SHARED / "real/aeroscapes9")
    monkeypatch.setenv("ARCHIVE", str(pack(tmp_path / "real.zip", real.root)))
    assert call("download")[0] == 0
    made = open_folder(tmp_path / "data/kaggle")
    assert made.size(made.train[0]) == (720, 1280) and missing_parts(made) == []
    root = tmp_path / "input/aeroscapes"
    for sub in ("JPEGImages", "SegmentationClass", "ImageSets"): (root / sub).mkdir(parents=True)
    for i in real.train:
        shutil.copyfile(real.images[i], root / f"JPEGImages/{i}.jpg")
        shutil.copyfile(real.masks[i], root / f"SegmentationClass/{i}.png")
    (root / "ImageSets/trn.txt").write_text("\n".join(real.train[1:]))
    (root / "ImageSets/val.txt").write_text(real.train[0])
    data = open_folder(find_data(tmp_path / "input"))
    assert data.layout == "aeroscapes" and missing_parts(data) == [] and data.mask(data.test[0]).max() < 12 and len(data.groups) == len(real.train)
