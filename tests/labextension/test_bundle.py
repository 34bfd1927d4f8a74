"""What is committed of the JupyterLab extension: small, complete, and built from its sources."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from truststram_lab import __version__
from truststram_lab.render import numbers

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "labextension"
BUNDLE = ROOT / "truststram_lab" / "labextension"
TYPES = SOURCES / "src" / "api" / "schema.gen.ts"
MAX_BUNDLE_BYTES = 150_000
#: jlpm comes with jupyter-builder: beside the interpreter, whether that is on PATH or not.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def test_the_bundle_names_what_jupyterlab_loads() -> None:
    manifest = read(BUNDLE / "package.json")
    build = manifest["jupyterlab"]["_build"]
    assert (BUNDLE / build["load"]).is_file()
    assert build["extension"] == "./extension"
    assert build["mimeExtension"] == "./mimeExtension"
    assert (BUNDLE / "static" / "style.js").is_file()


def test_the_bundle_is_small_and_has_no_source_maps() -> None:
    files = list(files_of(BUNDLE))
    assert sum(path.stat().st_size for path in files) < MAX_BUNDLE_BYTES
    assert not [path.name for path in files if path.suffix == ".map"]
    for script in BUNDLE.glob("static/*.js"):
        assert not re.search(r"^//# sourceMappingURL=", script.read_text(encoding="utf-8"), re.M)


def test_the_bundle_brings_no_library_of_its_own() -> None:
    licences = read(BUNDLE / "static" / "third-party-licenses.json")
    assert {entry["name"] for entry in licences["packages"]} <= {"css-loader", "style-loader"}


def test_no_file_names_a_registry_or_this_machine() -> None:
    lock = (SOURCES / "yarn.lock").read_text(encoding="utf-8")
    assert not re.search(r"https?:", lock)
    assert "archiveUrl" not in lock
    for path in files_of(BUNDLE):
        assert str(ROOT) not in path.read_text(encoding="utf-8"), path.name


def test_versions_agree() -> None:
    assert read(BUNDLE / "package.json")["version"] == __version__
    assert read(SOURCES / "package.json")["version"] == __version__


def test_every_dependency_is_open_to_all_of_jupyterlab_4() -> None:
    wanted = read(SOURCES / "package.json")["dependencies"]
    majors = {"@jupyterlab/coreutils": 6, "@jupyterlab/services": 7}
    majors["@jupyterlab/rendermime-interfaces"] = 3
    for name, version in wanted.items():
        if name.startswith("@jupyterlab/"):
            assert version == f"^{majors.get(name, 4)}.0.0", name


@pytest.mark.long
@pytest.mark.node
@pytest.mark.timeout(600)
def test_the_bundle_is_what_its_sources_build(workshop: Path) -> None:
    run(["jlpm", "build:prod"], workshop)
    built = hashes(workshop.parent / "truststram_lab" / "labextension")
    assert built == hashes(BUNDLE), "run `jlpm build:prod` in labextension and commit the bundle"


@pytest.mark.node
@pytest.mark.timeout(600)
def test_the_types_are_the_platforms(workshop: Path, tmp_path: Path) -> None:
    environment = {"PYTHON": os.environ.get("PYTHON", sys.executable), "PYTHONPATH": str(ROOT)}
    run(["node", "scripts/types.mjs", str(tmp_path / "schema.gen.ts")], workshop, environment)
    fresh = (tmp_path / "schema.gen.ts").read_text(encoding="utf-8")
    committed = TYPES.read_text(encoding="utf-8")
    assert fresh == committed, "run `npm run types` in labextension and commit the result"


@pytest.mark.node
@pytest.mark.timeout(600)
def test_numbers_read_as_on_the_cards(workshop: Path) -> None:
    run(["jlpm", "build:lib"], workshop)
    shares = [0.0, 1.0, 0.025, 0.975, 0.9996, 0.99999, 1e-7, 1 / 3, 0.125, 0.005, 0.9]
    amounts = [0.0, 2.6, -0.4, 0.125, 0.004, -0.00312, 1234.5, 3.475, 2.5e-5, -2e9]
    sizes = [0, 840, 1200, 24_000, 3_400_000, 999_499]
    seconds = [0.4, 14, 59.6, 185, 7620, 360_000, 0.25]
    script = (
        "import * as f from './lib/format.mjs';"
        f"const [shares, amounts, sizes, seconds] = {[shares, amounts, sizes, seconds]};"
        "console.log(JSON.stringify([shares.map(v => f.share(v)), shares.map(v => f.percent(v)),"
        "amounts.map(f.signed), sizes.map(f.size), seconds.map(f.duration)]))"
    )
    (workshop / "lib" / "format.js").rename(workshop / "lib" / "format.mjs")
    said = json.loads(run(["node", "--input-type=module", "-e", script], workshop))
    assert said == [
        [numbers.share(value) for value in shares],
        [numbers.percent(value) for value in shares],
        [numbers.signed(value) for value in amounts],
        [numbers.size(value) for value in sizes],
        [numbers.duration(value) for value in seconds],
    ]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources beside which a bundle can be built, with the locked packages."""
    for tool in ("node", "jlpm"):
        if shutil.which(tool, path=PATH) is None:
            missing(f"{tool} is not on PATH")
    copy = tmp_path_factory.mktemp("workshop") / "labextension"
    leave = shutil.ignore_patterns("node_modules", "lib", "*.tsbuildinfo", ".yarn")
    shutil.copytree(SOURCES, copy, ignore=leave)
    run(["jlpm", "install", "--immutable"], copy, registry())
    return copy


def registry() -> dict[str, str]:
    """The registry that npm uses here: jlpm does not read npm's settings."""
    npm = shutil.which("npm")
    if npm is None or "YARN_NPM_REGISTRY_SERVER" in os.environ:
        return {}
    answer = subprocess.run(
        [npm, "config", "get", "registry"], capture_output=True, text=True, check=True
    )
    address = answer.stdout.strip()
    environment = {"YARN_NPM_REGISTRY_SERVER": address}
    if address.startswith("http:"):
        environment["YARN_UNSAFE_HTTP_WHITELIST"] = "*"
    return environment


def run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    found = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": PATH, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode and command[:2] == ["jlpm", "install"] and "YN0028" not in found.stdout:
        missing(f"the npm registry does not answer: {found.stdout[-500:]}")
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    return found.stdout


def missing(reason: str) -> None:
    if "node" in os.environ.get("TS_REQUIRE", "").replace(",", " ").split():
        pytest.fail(f"TS_REQUIRE names node, but {reason}")
    pytest.skip(f"{reason}; the JupyterLab extension was not rebuilt")


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files_of(folder)
    }


def read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
