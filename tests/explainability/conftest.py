"""Other libraries as oracles; they lie beside the environment (``oracles.txt``)."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def library() -> Iterator[Callable[[str], Any]]:
    """Imports a module of theirs, or skips; fails where TS_REQUIRE names ``oracles``."""
    folder = str(Path(sys.prefix, "oracles"))
    # Behind the environment's own: nothing of theirs may take its place.
    sys.path.append(folder)

    def load(name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            if "oracles" in os.environ.get("TS_REQUIRE", "").replace(",", " ").split():
                pytest.fail(f"TS_REQUIRE names oracles, but {error}.")
            pytest.skip(f"{error}; install tests/explainability/oracles.txt into {folder}.")

    yield load
    sys.path.remove(folder)
