"""An open panel does not keep the sandbox awake, and wakes it when somebody wants it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from jupyter_process import Jupyter

from truststram_lab import sandbox

API = "platform/api/v1"
WAIT_S = 60.0


@pytest.fixture
def sleepy(tmp_path) -> Iterator[Jupyter]:
    """A server whose sandbox goes after two idle seconds."""
    started = Jupyter(tmp_path, TRUSTSTRAM_IDLE_S="2")
    try:
        yield started.wait()
    finally:
        started.end()


def test_a_sandbox_goes_idle_under_an_open_panel_and_is_woken_by_it(sleepy):
    browser = sleepy.client()
    first = browser.post("start").json()
    assert first["state"] == "running"
    made = browser.post(f"{API}/federations", json={"name": "icu"})
    assert made.status_code == 200
    process = sandbox.status(sleepy.home).pid

    # what a panel does: it listens, and looks now and then
    params = {"stream": "org", "after": "latest"}
    with sleepy.client().stream("GET", f"{API}/events", params=params) as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": open"
        deadline = time.monotonic() + WAIT_S
        looked = 0
        while (status := browser.get("status").json())["state"] == "running":
            assert time.monotonic() < deadline, "the panel keeps it awake"
            looked += 1
            time.sleep(0.1)
        assert looked > 1
        assert not [line for line in lines if line.startswith("data: ")]  # and it ends in order
    assert status == {
        **first,
        "state": "stopped",
        "version": None,
        "identity": None,
        "message": "The sandbox is not running; start it in the panel, or with "
        "%ts_login --sandbox.",
    }
    log = (sleepy.home / "platform.log").read_text()
    assert "idle for 2 s" in log
    assert "Traceback" not in log

    # looking on goes on, and wakes nobody
    refused = browser.get(f"{API}/events", params=params)
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert browser.get("status").json() == status
    assert sandbox.status(sleepy.home) is None

    # the panel's button does; what there was is there
    assert browser.post("start").json()["state"] == "running"
    assert sandbox.status(sleepy.home).pid != process
    found = browser.get(f"{API}/federations").json()["items"]
    assert [federation["name"] for federation in found] == ["icu"]
    with sleepy.client().stream("GET", f"{API}/events", params={"stream": "org"}) as answer:
        told = (line for line in answer.iter_lines() if line.startswith("data: "))
        kinds = [json.loads(next(told).removeprefix("data: "))["type"] for _ in range(2)]
    assert kinds == ["organisation.created", "federation.created"]


def test_somebody_at_work_in_the_panel_keeps_it_awake(sleepy):
    browser = sleepy.client()
    assert browser.post("start").json()["state"] == "running"
    process, began = sandbox.status(sleepy.home).pid, time.monotonic()
    while time.monotonic() - began < 5:
        assert browser.get(f"{API}/models").status_code == 200
        time.sleep(0.3)
    assert sandbox.status(sleepy.home).pid == process
