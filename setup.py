"Package metadata from settings.ini, so that it stands in one place."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
ini = ConfigParser(delimiters=["="])
ini.read(here / "settings.ini", encoding="utf-8")
meta = ini["DEFAULT"]
extras = {name: meta[f"{name}_requirements"].split() for name in ("predict", "train", "export", "maps", "dev")}
extras["dev"] += extras["train"] + extras["export"] + extras["maps"]      # the tests need all of it

setup(
    name=meta["lib_name"], version=meta["version"], description=meta["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"), long_description_content_type="text/markdown",
    author=meta["author"], license=meta["license"], keywords=meta["keywords"].split(),
    python_requires=">=" + meta["min_python"], packages=find_packages(include=["aerialseg*"]),
    package_data={"aerialseg": ["templates/*"]},
    install_requires=meta["requirements"].split(), extras_require=extras,
    entry_points={"console_scripts": [meta["console_scripts"]]},
)
