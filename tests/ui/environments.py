"""The versions of Jupyter that are supported, each laid over the environment of the tests.

A folder below ``.venv/versions`` holds the few packages of one version, as
``tests/ui/versions/NAME.txt`` pins them; put first on the path, it hides the newest ones. So
that each costs seconds and megabytes, and all share one torch. ``make versions`` makes them.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab_server import LabServer

PINS = Path(__file__).parent / "versions"
OVERLAYS = Path(sys.prefix) / "versions"


@dataclass(frozen=True)
class Version:
    """One combination that is supported.

    Args:
        name: of the file with its pins; empty for what the tests run in.
        tells: Python that prints the version, in the environment of the server.
    """

    name: str
    tells: str = ""

    @property
    def id(self) -> str:
        return self.name or "newest"

    @property
    def folder(self) -> Path:
        return OVERLAYS / self.name

    @property
    def pinned(self) -> str:
        """The version of the first package in the file."""
        return next(iter(self.pins.values()))

    @property
    def pins(self) -> dict[str, str]:
        """package -> version, as the file has them."""
        lines = (PINS / f"{self.name}.txt").read_text().splitlines()
        pairs = (line.partition("==") for line in lines if not line.startswith("#"))
        return {name: number for name, _, number in pairs}

    def variables(self) -> dict[str, str]:
        """What a process needs in its environment to run with this version."""
        if not self.name:
            return {}
        former = os.environ.get("PYTHONPATH")
        found = {
            "PYTHONPATH": os.pathsep.join([str(self.folder), *([former] if former else [])]),
            "JUPYTER_PATH": str(self.folder / "share" / "jupyter"),
        }
        application = self.folder / "share" / "jupyter" / "lab"
        if (application / "static").is_dir():
            found["JUPYTERLAB_DIR"] = str(application)
        return found

    def require(self) -> None:
        """Skip without the packages, unless TS_REQUIRE names ``browser``: then fail."""
        if not self.name or (self.folder / ".installed").exists():
            return
        missing = f"{self.id} is not installed in {OVERLAYS}; `make versions` does it"
        if "browser" in os.environ.get("TS_REQUIRE", "").replace(",", " ").split():
            pytest.fail(f"TS_REQUIRE asks for a browser, and {missing}.")
        pytest.skip(f"{missing}.")


NEWEST = Version("")
OLDEST_KERNEL = Version("ipykernel-oldest", "import ipykernel; print(ipykernel.__version__)")
OLDEST_LAB = Version("jupyterlab-oldest", "import jupyterlab; print(jupyterlab.__version__)")
NOTEBOOK = Version("notebook", "import notebook; print(notebook.__version__)")


class VersionedLab(LabServer):
    """A JupyterLab, or Notebook 7, of one of the supported versions."""

    def __init__(self, folder: Path, version: Version) -> None:
        super().__init__(folder)
        self._version = version
        if version is NOTEBOOK:
            self.MODULE, self.APPLICATION, self.PLACE = (
                "notebook",
                "JupyterNotebookApp",
                "notebooks",
            )

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **self._version.variables()}
