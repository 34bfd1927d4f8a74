"""A team's platform whose certificate a private authority signed, seen through Jupyter."""

from __future__ import annotations

import runpy
import ssl
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from jupyter_process import Jupyter
from test_configured_platform import IDENTITY, KEY, _Team

#: the same authority as the transport's tests
ISSUE = runpy.run_path(str(Path(__file__).parents[1] / "transport" / "private_authority.py"))[
    "issue"
]


@pytest.fixture(scope="module")
def secure(tmp_path_factory) -> Iterator[tuple[str, Any]]:
    """The address of a platform with TLS, and its certificate's files."""
    issued = ISSUE(tmp_path_factory.mktemp("authority"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Team,), {"asked": []}))
    server.daemon_threads = True
    context: ssl.SSLContext = issued.context()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}", issued
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("known", [False, True])
def test_the_panel_says_how_to_trust_the_platform_and_then_does(
    secure, known, tmp_path, monkeypatch
):
    url, issued = secure
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    settings = {"TRUSTSTRAM_BASE_URL": url, "TRUSTSTRAM_API_KEY": KEY}
    if known:
        settings["SSL_CERT_FILE"] = str(issued.authority)
    jupyter = Jupyter(tmp_path, **settings)
    try:
        browser = jupyter.wait().client()
        status = browser.get("status").json()
        whoami = browser.get("platform/api/v1/whoami")
    finally:
        jupyter.end()
    if known:
        assert (status["state"], status["message"]) == ("running", None)
        assert whoami.json() == IDENTITY
        return
    assert status["state"] == "unreachable"
    assert whoami.status_code == 502
    for said in (status["message"], whoami.json()["detail"]):
        assert url in said
        assert "set SSL_CERT_FILE to the PEM file of the authority" in said
