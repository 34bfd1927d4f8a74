"""What Binder builds from: the files are there, run, and agree with what is tested here."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BINDER = ROOT / "binder"
TUTORIAL = "notebooks/01_three_cells.ipynb"


def plain(name: str) -> str:
    """The name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", name)[0]).lower()


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def test_binder_finds_its_four_files():
    assert sorted(file.name for file in BINDER.iterdir()) == [
        "postBuild", "requirements.txt", "runtime.txt", "start",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_scripts_are_executable_and_parse(name):
    assert os.access(BINDER / name, os.X_OK)
    assert (BINDER / name).read_text().startswith("#!/bin/bash\n")
    subprocess.run(["bash", "-n", str(BINDER / name)], check=True)


def test_requirements_are_the_packages_and_held_by_the_constraints():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(line.split("==") for line in lines(ROOT / "constraints.txt"))
    pinned = {plain(name): version for name, version in pins.items()}
    given = lines(BINDER / "requirements.txt")
    assert given[0] == "-c ../constraints.txt"
    assert (BINDER / given[0].split()[1]).resolve() == ROOT / "constraints.txt"
    names = {plain(line) for line in given[1:]}
    assert names - {"uv"} == {plain(name) for name in project["dependencies"]} - {"torch"}
    assert names - {"uv"} <= set(pinned)
    for line in given[1:]:
        name, _, version = line.partition("==")
        assert not version or pinned.get(plain(name), version) == version
    assert "torch" in pinned


def test_python_is_one_that_the_package_supports():
    version = BINDER.joinpath("runtime.txt").read_text().strip().removeprefix("python-")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]


def test_no_file_names_a_host():
    for file in BINDER.iterdir():
        assert not re.search(r"https?:|\b[a-z0-9-]+\.(org|com|io|net)\b", file.read_text()), file


def started(*command: str) -> list[str]:
    """The words that ``start`` runs, and the settings it gives them."""
    done = subprocess.run(
        [str(BINDER / "start"), *command], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_start_keeps_keys_in_memory_and_runs_what_it_is_given():
    assert "TRUSTSTRAM_TOKEN_STORAGE=memory" in started("env")
    assert started("echo", "a b", "c") == ["a b c"]


def test_start_opens_jupyter_on_the_first_tutorial(tmp_path):
    assert (ROOT / TUTORIAL).is_file()
    jupyter = tmp_path / "jupyter-lab"
    jupyter.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    jupyter.chmod(0o755)
    assert started(str(jupyter), "--port=1") == [
        "--port=1",
        f"--ServerApp.default_url=/lab/tree/{TUTORIAL}",
        f"--LabApp.default_url=/lab/tree/{TUTORIAL}",
    ]
