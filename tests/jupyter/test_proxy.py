"""The proxy passes the API on, byte for byte as it comes, and nothing else."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from jupyter_process import BASE, TOKEN

from truststram_lab import sandbox
from truststram_lab.learning import weights

API = "platform/api/v1"
PIECE = bytes(range(256)) * 4096
MEGABYTES = 96


def raw_get(jupyter, path: str) -> tuple[int, bytes]:
    """Ask for a path exactly as it is written; clients would tidy it up."""
    connection = http.client.HTTPConnection("127.0.0.1", jupyter.port, timeout=30)
    try:
        connection.request(
            "GET", f"{BASE}truststram/{path}", headers={"Authorization": f"token {TOKEN}"}
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def frames(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """The events of an open stream, as they come."""
    for line in answer.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def access_lines(home) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (home / "platform.log").read_text().splitlines()]
    return [line for line in lines if line["logger"] == "truststram_lab.access"]


def add_version(browser: httpx.Client, model: str) -> None:
    """What the organisation's stream tells of: a new version of a one-column model."""
    state = {
        "layers.0.weight": np.ones((1, 1), np.float32),
        "layers.0.bias": np.zeros(1, np.float32),
    }
    body = weights.encode(state)
    sha256 = weights.sha256_hex(body)
    assert browser.put(f"{API}/blobs/{sha256}", content=body).is_success
    version = {
        "weights_sha256": sha256,
        "architecture": {"inputs": 1, "layers": [{"type": "dense", "units": 1}]},
        "signature": {
            "columns": [{"name": "dose", "kind": "numeric"}],
            "target": "ill",
            "classes": ["no", "yes"],
            "positive_class": "yes",
        },
        "statistics": {
            "rows": 100,
            "sites": 2,
            "columns": [{"name": "dose", "count": 100, "missing": 0, "mean": 5.0, "variance": 4.0}],
        },
    }
    made = browser.post(f"{API}/models/{model}/versions", json=version)
    assert made.status_code == 201, made.text


def until(condition, seconds: float = 8.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_calls_reach_the_platform_and_problems_come_back(browser):
    assert browser.get(f"{API}/whoami").json()["environment"] == "sandbox"
    made = browser.post(f"{API}/models", json={"name": "icu"}, headers={"Idempotency-Key": "k1"})
    assert made.status_code == 201
    again = browser.post(f"{API}/models", json={"name": "icu"}, headers={"Idempotency-Key": "k1"})
    assert again.json() == made.json()
    listed = browser.get(f"{API}/models", params={"limit": 1, "search": "icu"})
    assert [model["name"] for model in listed.json()["items"]] == ["icu"]
    missing = browser.get(f"{API}/models/ico")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.json()["code"] == "model_not_found"
    assert "location" not in made.headers
    head = browser.head(f"{API}/models/icu")
    assert head.headers["content-type"] == browser.get(f"{API}/none").headers["content-type"]
    assert head.content == b""


def test_what_jupyters_front_end_adds_to_an_address_stays_there(jupyter, browser):
    plain = jupyter.client(None)
    found = plain.get(f"{API}/models?limit=1&1700000000000&token={TOKEN}")
    assert found.status_code == 200
    assert len(found.json()["items"]) == 1


@pytest.mark.parametrize("token", [None, "another"])
def test_the_platform_hears_nothing_of_a_stranger(jupyter, browser, token):
    before = len(access_lines(jupyter.home))
    with jupyter.client(token) as stranger:
        made = stranger.post(f"{API}/models", json={"name": "strange"})
        assert made.status_code == 403
        assert stranger.get(f"{API}/whoami").status_code == 403
    assert browser.get(f"{API}/models/strange").status_code == 404
    lines = access_lines(jupyter.home)[before:]
    assert {line["path"] for line in lines} == {"/health", "/api/v1/models/strange"}


def test_the_platform_hears_nothing_of_a_forged_request(jupyter, browser):
    with jupyter.client(None, follow_redirects=True) as page:
        page.get(f"{jupyter.url}api/status", params={"token": TOKEN})
        assert page.get(f"{API}/whoami").status_code == 200
        forged = page.post(f"{API}/models", json={"name": "forged"})
        assert forged.status_code == 403
    assert browser.get(f"{API}/models/forged").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "platform",
        "platform/",
        "platform/health",
        "platform/api/v1",
        "platform/api/v2/whoami",
        "platform/api/v1/../../health",
        "platform/api/v1/..%2f..%2fhealth",
        "platform/api/v1/%2e%2e/%2e%2e/health",
        "platform/api/v1/.%2e/whoami",
        "platform/api/v1/./whoami",
        "platform/api/v1//whoami",
        "platform//api/v1/whoami",
        "platform/%2fapi/v1/whoami",
        "platform/api/v1/..%5c..%5chealth",
        "platform/api/v1/models/a%0d%0aHost:%20b",
        "platform/api/v1/models/%00",
        "platform/http://127.0.0.1/api/v1/whoami",
        "platform//127.0.0.1/api/v1/whoami",
        "platform/@127.0.0.1/api/v1/whoami",
        "platform@127.0.0.1/api/v1/whoami",
    ],
)
def test_only_the_api_is_reached(jupyter, browser, path):
    before = len(access_lines(jupyter.home))
    status, body = raw_get(jupyter, path)
    assert status == 404, body
    after = [line["path"] for line in access_lines(jupyter.home)[before:]]
    assert [line for line in after if line != "/health"] == []


def test_a_path_is_decoded_once(jupyter, browser):
    status, body = raw_get(jupyter, f"{API}/models/%252e%252e%252fwhoami")
    assert status == 404
    assert "'%2e%2e%2fwhoami'" in json.loads(body)["detail"]
    status, body = raw_get(jupyter, f"{API}/models/a%20b%3Fc%23d")
    assert "'a b?c#d'" in json.loads(body)["detail"]


def test_events_come_at_once_and_go_on_where_they_stopped(browser):
    stream = {"stream": "org"}
    with browser.stream("GET", f"{API}/events", params=stream) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        events = frames(answer)
        first = next(events)
        assert first["type"] == "organisation.created"
        assert next(events)["type"] == "model.created"
        began = time.monotonic()
        threading.Timer(0.3, add_version, (browser, "icu")).start()
        second = next(events)
        assert second["type"] == "model.version_created"
        assert time.monotonic() - began < 5, "held back until the heartbeat"
    add_version(browser, "icu")
    resumed = {"Last-Event-ID": str(second["sequence"])}
    with browser.stream("GET", f"{API}/events", params=stream, headers=resumed) as answer:
        third = next(frames(answer))
    assert third["sequence"] == second["sequence"] + 1
    assert third["data"]["version"] == 2


def test_a_browser_that_leaves_ends_the_platforms_stream(jupyter, browser):
    def ended() -> int:
        return sum(line["path"] == "/api/v1/events" for line in access_lines(jupyter.home))

    with jupyter.client().stream("GET", f"{API}/events", params={"stream": "org"}) as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": open"
        time.sleep(0.5)  # streams of other tests are over by now
        before = ended()
    # Sooner than the heartbeat, which would notice at the latest after 10 s.
    assert until(lambda: ended() == before + 1, 5)
    assert "Traceback" not in jupyter.log


def test_large_files_pass_through_both_ways_in_little_memory(jupyter, browser):
    digest = hashlib.sha256()
    for _ in range(MEGABYTES):
        digest.update(PIECE)
    address = f"{API}/blobs/{digest.hexdigest()}"
    before = jupyter.peak_bytes()
    put = browser.put(address, content=(PIECE for _ in range(MEGABYTES)))
    assert put.status_code == 201, put.text
    assert put.json()["size_bytes"] == MEGABYTES * len(PIECE)
    received = hashlib.sha256()
    with browser.stream("GET", address) as answer:
        assert int(answer.headers["content-length"]) == MEGABYTES * len(PIECE)
        for piece in answer.iter_raw():
            received.update(piece)
    assert received.hexdigest() == digest.hexdigest()
    assert jupyter.peak_bytes() - before < 24 * 2**20


def test_a_slow_reader_is_waited_for_without_memory(jupyter, browser):
    sha256 = hashlib.sha256(PIECE * 32).hexdigest()
    assert browser.put(f"{API}/blobs/{sha256}", content=PIECE * 32).is_success
    before = jupyter.peak_bytes()
    with browser.stream("GET", f"{API}/blobs/{sha256}") as answer:
        pieces = answer.iter_raw()
        size = len(next(pieces))
        time.sleep(1.0)
        assert jupyter.peak_bytes() - before < 16 * 2**20
        assert size + sum(map(len, pieces)) == len(PIECE) * 32


def test_a_body_over_the_platforms_limit_is_the_platforms_refusal(browser):
    refused = browser.post(f"{API}/models", content=b" " * 10_000_001)
    assert refused.status_code == 413
    assert refused.json()["code"] == "payload_too_large"


def test_an_upload_that_breaks_off_leaves_nothing(jupyter, browser):
    def stops() -> Iterator[bytes]:
        yield PIECE
        time.sleep(0.5)  # until the platform reads it
        raise RuntimeError("the browser is closed")

    sha256 = hashlib.sha256(PIECE * 2).hexdigest()
    with pytest.raises(RuntimeError, match="closed"):
        jupyter.client().put(f"{API}/blobs/{sha256}", content=stops())
    assert browser.get(f"{API}/blobs/{sha256}").status_code == 404
    assert until(
        lambda: any(
            line["method"] == "PUT" and line["path"].endswith(sha256) and line["status"] == 499
            for line in access_lines(jupyter.home)
        )
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_platform_that_goes_away_ends_its_streams_and_the_next_one_is_found(
    jupyter, browser, how
):
    with browser.stream("GET", f"{API}/events", params={"stream": "org"}) as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": open"
        os.kill(sandbox.status(jupyter.home).pid, how)
        for _ in lines:
            pass
    assert until(lambda: browser.get("status").json()["state"] == "stopped")
    refused = browser.get(f"{API}/whoami")
    assert refused.status_code == 503
    assert refused.json()["status"] == 503
    assert refused.json()["detail"].endswith(".")
    assert browser.post("start").json()["state"] == "running"
    assert browser.get(f"{API}/models/icu").status_code == 200
    with browser.stream("GET", f"{API}/events", params={"stream": "org"}) as answer:
        assert next(frames(answer))["sequence"] == 1


def test_an_emptied_sandbox_is_used_with_its_new_key(jupyter, browser):
    former = sandbox.status(jupyter.home).api_key
    sandbox.reset(jupyter.home, confirm=True)
    assert browser.post("start").json()["state"] == "running"
    assert sandbox.status(jupyter.home).api_key != former
    assert browser.get(f"{API}/models").json()["items"] == []


def test_the_platforms_key_never_reaches_the_browser_or_a_log(jupyter, browser):
    key = sandbox.status(jupyter.home).api_key
    browser.get("status")
    browser.get(f"{API}/whoami")
    assert len(jupyter.seen) > 50
    assert not [answer for answer in jupyter.seen if key.encode() in answer]
    assert not re.search(r"\btsk_[A-Za-z0-9_-]{20,}", jupyter.log)
    assert key not in jupyter.log
    assert TOKEN not in (jupyter.home / "platform.log").read_text()
