"""Sites that join in a test leave at its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def ending() -> Iterator[list[Any]]:
    """Whoever joined in a test leaves at its end."""
    joined: list[Any] = []
    yield joined
    for one in joined:
        one.stop()
