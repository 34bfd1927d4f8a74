"""Jupyter servers with the extension, shared by the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from jupyter_process import Jupyter


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """A server whose platform is a sandbox of its own, not started yet."""
    started = Jupyter(tmp_path_factory.mktemp("jupyter"))
    try:
        yield started.wait()
    finally:
        started.end()


@pytest.fixture(scope="module")
def browser(jupyter: Jupyter) -> httpx.Client:
    """A signed-in browser of that server, and the sandbox running."""
    client = jupyter.client()
    assert client.post("start").json()["state"] == "running"
    return client
