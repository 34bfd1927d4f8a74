"""Platforms of the tests: one shared by a module, or one that a test starts and ends.

Each keeps its state in SQLite and, in the long tests, in a real PostgreSQL.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from platform_process import PlatformProcess
from postgresql import PostgreSQL, programs

#: the same tests on each; the second is for ``make test-all``
DATABASES = [
    "sqlite",
    pytest.param("postgresql", marks=[pytest.mark.long, pytest.mark.postgres]),
]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A server of PostgreSQL; skipped without its programs unless TS_REQUIRE names ``postgres``."""
    if programs() is None:
        missing = "PostgreSQL's programs are missing; Debian's package is named postgresql."
        if "postgres" in os.environ.get("TS_REQUIRE", "").replace(",", " ").split():
            pytest.fail(f"TS_REQUIRE asks for postgres, and {missing}")
        pytest.skip(missing)
    made = PostgreSQL()
    yield made
    made.end()


def _database(request: pytest.FixtureRequest) -> str | None:
    if request.param == "sqlite":
        return None
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()


@pytest.fixture(scope="module", params=DATABASES)
def platform(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PlatformProcess]:
    made = PlatformProcess(tmp_path_factory.mktemp("home"), _database(request)).start()
    yield made
    made.end()


@pytest.fixture(params=DATABASES)
def unstarted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PlatformProcess]:
    made = PlatformProcess(tmp_path / "home", _database(request))
    yield made
    made.end()


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    return _database(request) or f"sqlite:///{tmp_path / 'test.db'}"
