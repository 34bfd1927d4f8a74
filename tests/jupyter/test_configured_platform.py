"""A platform that the settings name: what it is told, and what comes back of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from jupyter_process import TOKEN, Jupyter

KEY = "tsk_the-key-of-a-team-platform"
IDENTITY = {
    "organisation": "clinic",
    "organisation_id": "org_1",
    "name": "jo",
    "principal_id": "prn_1",
    "role": "member",
    "environment": "production",
    "platform_version": "9.9.9",
    "protocol": 1,
}


class _Team(BaseHTTPRequestHandler):
    """Answers as a platform does, and as one never should; remembers what it was asked."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str, dict[str, str], bytes]]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.asked.append((self.command, self.path, headers, body))
        name = self.path.partition("?")[0].rpartition("/")[2]
        if name == "whoami":
            self._send(200, json.dumps(IDENTITY).encode(), {"Content-Type": "application/json"})
        elif name == "short":
            self._send(200, b"half", {"Content-Length": "8"})
            self.close_connection = True
        elif name == "gone":
            self.close_connection = True
        elif name == "moved":
            self._send(302, b"", {"Location": "http://evil.example.org/", "Set-Cookie": "a=b"})
        else:
            self._send(200, b"<p>", {"Content-Type": "text/html"})

    do_POST = do_GET

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Tests read what was asked, not a log."""


@pytest.fixture(scope="module")
def team() -> Iterator[ThreadingHTTPServer]:
    handler = type("Handler", (_Team,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def jupyter(team: ThreadingHTTPServer, tmp_path_factory) -> Iterator[Jupyter]:
    started = Jupyter(
        tmp_path_factory.mktemp("team"),
        TRUSTSTRAM_BASE_URL=f"http://127.0.0.1:{team.server_port}/team/api/v1",
        TRUSTSTRAM_API_KEY=KEY,
        HTTP_PROXY="http://127.0.0.1:9",
    )
    try:
        yield started.wait()
    finally:
        started.end()


@pytest.fixture
def asked(team: ThreadingHTTPServer) -> list[tuple[str, str, dict[str, str], bytes]]:
    found: list[tuple[str, str, dict[str, str], bytes]] = team.RequestHandlerClass.asked
    found.clear()
    return found


def test_the_status_is_the_platforms_and_there_is_nothing_to_start(jupyter, team):
    client = jupyter.client()
    expected = {
        "state": "running",
        "kind": "platform",
        "version": "9.9.9",
        "protocol": 1,
        "identity": IDENTITY,
        "message": None,
    }
    assert client.get("status").json() == expected
    assert client.post("start").json() == expected
    assert not (jupyter.home / "sandbox.json").exists()


def test_the_platform_sees_its_own_key_and_nothing_of_jupyters(jupyter, asked):
    jupyter.client().post(
        "platform/api/v1/models",
        params={"name": "x y", "token": TOKEN, "_xsrf": "secret-xsrf"},
        content=b"{}",
        headers={
            "Cookie": "_xsrf=secret-xsrf; username=jo",
            "X-XSRFToken": "secret-xsrf",
            "Origin": jupyter.url.partition("/user")[0],
            "Referer": jupyter.url,
            "Idempotency-Key": "once",
            "X-Forwarded-For": "10.0.0.1",
        },
    )
    ((method, path, headers, body),) = asked
    assert (method, path, body) == ("POST", "/team/api/v1/models?name=x+y", b"{}")
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["idempotency-key"] == "once"
    assert headers["host"].startswith("127.0.0.1:")
    assert str(jupyter.port) not in headers["host"]
    told = json.dumps(headers)
    for secret in (TOKEN, "secret-xsrf", "username", "10.0.0.1", "/user/jo"):
        assert secret not in told
    assert not {"cookie", "origin", "referer", "x-xsrftoken"} & set(headers)


def test_the_browser_is_sent_nowhere_and_given_no_cookie(jupyter):
    moved = jupyter.client().get("platform/api/v1/moved")
    assert moved.status_code == 302
    assert "location" not in moved.headers
    assert "a=b" not in moved.headers.get("set-cookie", "")  # Jupyter sets its own
    page = jupyter.client().get("platform/api/v1/page")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"


def test_a_shortened_answer_does_not_look_whole(jupyter):
    with pytest.raises(httpx.TransportError):
        jupyter.client().get("platform/api/v1/short")


def test_a_question_is_asked_again_and_a_command_is_not(jupyter, asked):
    client = jupyter.client()
    for method, times in (("GET", 2), ("POST", 1)):
        asked.clear()
        refused = client.request(method, "platform/api/v1/gone")
        assert refused.status_code == 502
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["detail"].endswith("went away before it answered; try again.")
        assert len(asked) == times


def test_a_platform_that_is_not_there_is_said_to_be_so(jupyter, team):
    team.shutdown()
    team.server_close()
    client = jupyter.client()
    told = client.get("status").json()
    assert told["state"] == "unreachable"
    assert told["kind"] == "platform"
    assert told["message"].startswith("Nobody answers at http://127.0.0.1:")
    refused = client.get("platform/api/v1/models")
    assert refused.status_code == 502
    assert refused.json()["detail"] == told["message"]


def test_no_key_is_in_an_answer_or_in_jupyters_log(jupyter):
    assert jupyter.seen
    assert not [answer for answer in jupyter.seen if KEY.encode() in answer]
    assert KEY not in jupyter.log


def test_a_platform_without_a_key_says_what_to_set(tmp_path):
    started = Jupyter(tmp_path, TRUSTSTRAM_BASE_URL="https://platform.example.org")
    try:
        client = started.wait().client()
        told = client.get("status").json()
        assert (told["state"], told["kind"]) == ("unreachable", "platform")
        assert "TRUSTSTRAM_API_KEY" in told["message"]
        assert client.get("platform/api/v1/models").status_code == 503
    finally:
        started.end()
