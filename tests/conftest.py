"""Shared fixtures: a private home for the platform, and a signed-in session on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Two cores are shared by the platform, its worker and the tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _platform_home(folder: Path) -> Iterator[Path]:
    from truststram_lab import sandbox

    former = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name.startswith(("TRUSTSTRAM_", "EDGEML_"))
    }
    os.environ["TRUSTSTRAM_HOME"] = str(folder)
    os.environ["TRUSTSTRAM_TOKEN_STORAGE"] = "memory"
    try:
        yield folder
    finally:
        sandbox.stop()
        for name in ("TRUSTSTRAM_HOME", "TRUSTSTRAM_TOKEN_STORAGE"):
            os.environ.pop(name, None)
        os.environ.update(former)


@pytest.fixture
def platform_home(tmp_path: Path) -> Iterator[Path]:
    """A home of its own for this test; its platform is stopped at the end."""
    yield from _platform_home(tmp_path / "home")


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One platform for the tests of a module."""
    yield from _platform_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def signed_in(platform_home: Path) -> Iterator[Path]:
    """The verbs are signed in to a fresh sandbox."""
    from truststram_lab import verbs

    verbs.login(sandbox=True)
    yield platform_home
    verbs.logout()


@pytest.fixture(scope="module")
def shared_session(shared_home: Path) -> Iterator[Path]:
    """The verbs are signed in to one sandbox for the whole module."""
    from truststram_lab import verbs

    verbs.login(sandbox=True)
    yield shared_home
    verbs.logout()
