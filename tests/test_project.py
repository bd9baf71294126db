"The habits of the project: notebooks cleaned at commit and merged cell by cell, versions that agree, forms and workflows that can be read."
import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def git(*words, cwd, check=True):
    done = subprocess.run(["git", *words], cwd=cwd, capture_output=True, text=True, env={**os.environ, "HOME": str(cwd.parent)})
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def repository(tmp_path):
    "A repository of its own with one notebook and the project's hooks."
    root = tmp_path / "repository"
    (root / "nbs").mkdir(parents=True)
    for name in ("Makefile", ".gitattributes", ".gitignore", "pyproject.toml", "settings.ini", "nbs/00h_places.ipynb"): shutil.copyfile(ROOT / name, root / name)
    shutil.copytree(ROOT / ".githooks", root / ".githooks")
    git("init", "-q", "-b", "main", cwd=root)
    for key, value in (("user.name", "n"), ("user.email", "n@example.org"), ("commit.gpgsign", "false")): git("config", key, value, cwd=root)
    git("add", "-A", cwd=root)
    git("commit", "-qm", "begin", cwd=root)
    home = {**os.environ, "HOME": str(tmp_path)}            # nbdev's installer writes Jupyter's settings there
    made = subprocess.run(["make", "-s", "-o", ".venv/.ready", "hooks", f"BIN={BIN}"], cwd=root, env=home, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "pre_save_hook" in (tmp_path / ".jupyter/jupyter_server_config.py").read_text()
    assert git("status", "--porcelain", cwd=root).stdout == ""      # putting in hooks changes no file of the project
    return root


def edit(root, k, line):
    "As JupyterLab would leave it: a line more in code cell k, and a count that nobody wants to see in git."
    path = root / "nbs/00h_places.ipynb"
    nb = json.loads(path.read_text(encoding="utf-8"))
    cell = [c for c in nb["cells"] if c["cell_type"] == "code"][k]
    cell["source"][-1] += "\n"
    cell["source"].append(line)
    cell["execution_count"], cell["metadata"] = 41, {"collapsed": True}
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def cells(root): return ["".join(c["source"]) for c in json.loads((root / "nbs/00h_places.ipynb").read_text(encoding="utf-8"))["cells"]]


def test_a_commit_cleans_its_notebooks(repository):
    edit(repository, 3, "# a line")
    git("commit", "-qam", "one", cwd=repository)
    stored = git("show", "HEAD:nbs/00h_places.ipynb", cwd=repository).stdout
    assert "# a line" in stored and '"execution_count": 41' not in stored and "collapsed" not in stored
    assert git("status", "--porcelain", cwd=repository).stdout == ""
    edit(repository, 3, "# staged")
    git("add", "-A", cwd=repository)
    edit(repository, 3, "# not staged")
    refused = git("commit", "-qm", "half", cwd=repository, check=False)
    assert refused.returncode and "not part of the commit" in refused.stderr


def test_two_branches_edit_one_notebook(repository):
    for branch, k in (("one", 3), ("two", 5)):
        git("switch", "-q", "-c", branch, "main", cwd=repository)
        edit(repository, k, f"# from {branch}")
        git("commit", "-qam", branch, cwd=repository)
    git("merge", "-q", "one", "-m", "both", cwd=repository)
    assert [any(f"# from {b}" in c for c in cells(repository)) for b in ("one", "two")] == [True, True]
    git("switch", "-q", "-c", "three", "main", cwd=repository)
    edit(repository, 3, "# from three")
    git("commit", "-qam", "three", cwd=repository)
    conflict = git("merge", "one", "-m", "same cell", cwd=repository, check=False)
    assert conflict.returncode and "CONFLICT" in conflict.stdout
    found = cells(repository)                                    # it still is a notebook, with both versions between marked cells
    assert {"from one", "from three"} <= {m for c in found for m in re.findall("from one|from three", c)} and any("<<<<<<<" in c for c in found)


def test_versions_are_compared(tmp_path):
    sys.path.insert(0, str(ROOT / "tests"))
    from gates import version_faults
    for name in ("settings.ini", "CITATION.cff", "aerialseg/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    version = re.search(r"^version = (.+)$", (ROOT / "settings.ini").read_text(), re.M)[1]
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {version}\n\n- …\n\n## 0.0.1\n")
    assert version_faults(tmp_path) == []
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## Unreleased\n\n## {version}\n")
    assert len(version_faults(tmp_path)) == 1 and "Unreleased" in version_faults(tmp_path)[0]
    (tmp_path / "aerialseg/__init__.py").write_text('__version__ = "9.9"\n')
    assert len(version_faults(tmp_path)) == 2
    assert not [f for f in version_faults(ROOT) if "CHANGELOG" not in f]      # in the project itself, always


def test_forms_and_workflows_can_be_read():
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= set(form), path.name
        fields = [f for f in form["body"] if f["type"] != "markdown"]
        assert len({f["id"] for f in fields}) == len(fields) and all(f["attributes"]["label"] for f in fields)
    ci, release = (yaml.safe_load((ROOT / f".github/workflows/{n}.yml").read_text()) for n in ("ci", "release"))
    assert any(".ci/run" in s.get("run", "") for s in ci["jobs"]["all"]["steps"])
    assert any(s.get("run") == "make release" for s in release["jobs"]["wheel"]["steps"]) and release[True]["push"]["tags"] == ["v*"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o100


def test_citation_and_licences():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cff["cff-version"] == "1.2.0" and cff["license"] == "Apache-2.0" and cff["authors"] and cff["references"][0]["year"] == 2018
    data = (ROOT / "data/README.md").read_text(encoding="utf-8")
    assert "CC0" in data and "CC BY-SA 4.0" in data and "Apache" in (ROOT / "LICENSE").read_text()


def test_the_guide_names_what_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in re.findall(r"\]\(([^)#:]+)\)|`((?:nbs|tests|data)/[\w/.]+)`", text):
        name = next(filter(None, path))
        if "NAME" not in name: assert (ROOT / name).exists(), name
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:`|^)make (\w+)", text, re.M)) <= targets


def needed_by(*extras: str) -> set[str]:
    "The distributions that an install with these extras brings, in this environment; names as in an index."
    from configparser import ConfigParser
    from importlib.metadata import PackageNotFoundError, distribution
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    ini = ConfigParser(delimiters=["="])
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    open_ends = [Requirement(r) for name in ("requirements", *(f"{e}_requirements" for e in extras)) for r in ini["DEFAULT"][name].split()]
    found = set()
    while open_ends:
        r = open_ends.pop()
        if (name := canonicalize_name(r.name)) in found: continue
        found.add(name)
        try: more = map(Requirement, distribution(name).requires or [])
        except PackageNotFoundError: continue
        open_ends += [m for m in more if m.marker is None or any(m.marker.evaluate({"extra": e}) for e in ("", *r.extras))]
    return found


def imported(code: str) -> set[str]:
    "The top-level modules that code imports anywhere."
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import): found |= {a.name.partition(".")[0] for a in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level: found.add(node.module.partition(".")[0])
    return found


def test_the_training_install_can_run_every_notebook_of_a_wheel():
    from importlib.metadata import packages_distributions
    from packaging.utils import canonicalize_name
    there, whose = needed_by("train"), packages_distributions()
    for path in sorted([*(ROOT / "nbs").glob("[0-9]*.ipynb"), *(ROOT / "nbs/studies").glob("*.ipynb")]):
        code = "\n".join("".join(c["source"]) for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code")
        for module in imported(code) - set(sys.stdlib_module_names) - {"aerialseg", "mlflow", "wandb"}:      # trackers: whoever names one installs it
            assert {canonicalize_name(d) for d in whose[module]} & there, f"{path.name} imports {module}, which pip install aerialseg[train] does not bring"
    assert "onnx" in there            # 06c_engine writes such files


def test_a_foreign_repository_gives_no_commit(tmp_path):
    "An environment may lie inside somebody's own repository, whose commit says nothing about this code."
    from aerialseg.manifest import code_state
    git = lambda *words: subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "env").mkdir()
    (tmp_path / "env/core.py").write_text("x = 1\n")
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "theirs")
    state = code_state(tmp_path / "env")
    assert state["commit"] is None and state["dirty"] is None and len(state["source"]) == 12
    git("add", "env")
    git("commit", "-q", "-m", "it is theirs after all")
    kept = code_state(tmp_path / "env")
    assert len(kept["commit"]) == 40 and kept["dirty"] is False and kept["source"] == state["source"]
