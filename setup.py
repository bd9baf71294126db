"Package metadata from settings.ini, so that it stands in one place; a wheel carries the notebooks, without their outputs."
import json
import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
ini = ConfigParser(delimiters=["="])
ini.read(here / "settings.ini", encoding="utf-8")
meta = ini["DEFAULT"]
extras = {name: meta[f"{name}_requirements"].split() for name in ("predict", "train", "export", "maps", "dev")}
extras["dev"] += extras["train"] + extras["export"] + extras["maps"]      # the tests need all of it


class BuildWithNotebooks(build_py):
    "`aerialseg run` executes the series; whoever installed a wheel has no checkout, so the wheel brings the notebooks along."
    def run(self):
        super().run()
        if not self.editable_mode: copy_notebooks(here / "nbs", Path(self.build_lib) / meta["lib_name"] / "_notebooks")


def copy_notebooks(source: Path, target: Path) -> None:
    "The numbered notebooks, the studies', and the tables that they read."
    shutil.rmtree(target, ignore_errors=True)      # of an earlier build
    for path in sorted(p for pattern in ("[0-9]*.ipynb", "studies/[0-9]*.ipynb") for p in source.glob(pattern)):
        nb = json.loads(path.read_text(encoding="utf-8"))
        for cell in nb["cells"]:
            if cell["cell_type"] == "code": cell |= {"outputs": [], "execution_count": None}
        out = target / path.relative_to(source)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(nb, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    for tables in ("expected", "studies/results"):
        shutil.copytree(source / tables, target / tables)


setup(
    name=meta["lib_name"], version=meta["version"], description=meta["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"), long_description_content_type="text/markdown",
    author=meta["author"], license=meta["license"], keywords=meta["keywords"].split(),
    python_requires=">=" + meta["min_python"], packages=find_packages(include=["aerialseg*"]),
    package_data={"aerialseg": ["templates/*"]},
    install_requires=meta["requirements"].split(), extras_require=extras,
    cmdclass={"build_py": BuildWithNotebooks},
    entry_points={"console_scripts": [meta["console_scripts"]]},
)
