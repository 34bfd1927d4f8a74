"""Platforms of the tests: one shared by a module, or one that a test starts and ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from platform_process import PlatformProcess


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    made = PlatformProcess(tmp_path_factory.mktemp("home")).start()
    yield made
    made.end()


@pytest.fixture
def unstarted(tmp_path: Path) -> Iterator[PlatformProcess]:
    made = PlatformProcess(tmp_path / "home")
    yield made
    made.end()
