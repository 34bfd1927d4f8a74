from __future__ import annotations

import pytest

from truststram_lab import sandbox


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A sandbox's folder of this test's own; what runs there is stopped afterwards."""
    folder = tmp_path / "home"
    monkeypatch.setenv("TRUSTSTRAM_HOME", str(folder))
    monkeypatch.delenv("TRUSTSTRAM_BASE_URL", raising=False)
    yield folder
    sandbox.stop(folder)
