"""One sandbox for each file of the client's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tiny_models import create_version

from truststram_lab import sandbox
from truststram_lab.client import TrustStramClient


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("client") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUSTSTRAM_HOME", str(folder))
        for name in ("BASE_URL", "API_KEY", "ENVIRONMENT"):
            patch.delenv(f"TRUSTSTRAM_{name}", raising=False)
        patch.delenv("EDGEML_API_BASE", raising=False)
        yield
        sandbox.stop(folder)


@pytest.fixture(scope="module")
def client(home) -> Iterator[TrustStramClient]:
    with TrustStramClient(environment="sandbox") as opened:
        yield opened


@pytest.fixture(scope="module")
def deployed(client) -> str:
    """A served model: ``logit = 2 * (dose - 5) / 2``."""
    client.models.create("dose")
    client.models.create_version("dose", create_version(client, 2.0))
    client.deployments.create("dose")
    return "dose"
