"Small folders and the real command, shared by the tests."
import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "agg")
ROOT = Path(__file__).resolve().parents[1]
LONG = ("test_faults", "test_series", "test_release", "test_way", "test_site", "test_lab", "test_devices")      # minutes each


def pytest_collection_modifyitems(items):
    "Long files first: begun last, they would leave one of two processes alone with them."
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    "A small data set that no test may change."
    from aerialseg.scenes import make_scenes
    return make_scenes(tmp_path_factory.mktemp("data") / "scenes", flights=4, frames=4, height=64, width=80, seed=3)


@pytest.fixture
def broken(scenes, tmp_path):
    "A copy of it to break."
    import shutil
    from aerialseg.folder import open_folder
    shutil.copytree(scenes.root, tmp_path / "broken")
    return open_folder(tmp_path / "broken")


@pytest.fixture
def aerialseg(tmp_path):
    "Run the real command in an empty folder."
    def command(*args, cwd=tmp_path, env=None, timeout=300):
        return subprocess.run([str(Path(sys.executable).parent / "aerialseg"), *map(str, args)], cwd=cwd, capture_output=True,
                              text=True, timeout=timeout, env={**os.environ, **(env or {})})
    return command
