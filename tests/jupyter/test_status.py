"""The extension is found, says where the platform is, and starts it when told to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from jupyter_process import BASE, TOKEN, environment

from truststram_lab import __version__, sandbox
from truststram_lab.schemas.accounts import Identity

DOORS = [
    ("GET", "status"),
    ("POST", "start"),
    ("GET", "tutorials"),
    ("POST", "tutorials/01_three_cells"),
    *((method, "platform/api/v1/whoami") for method in ("GET", "HEAD", "POST", "PUT", "DELETE")),
    ("PATCH", "platform/api/v1/models/a"),
    ("GET", "platform/api/v1/events?stream=org"),
]


def test_jupyter_finds_the_extension_by_its_configuration_file(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "jupyter", "server", "extension", "list"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    assert "truststram_lab enabled" in told
    assert f"truststram_lab {__version__} OK" in told


def test_the_extension_loads_and_every_door_asks_who_it_is(jupyter):
    assert "truststram_lab | extension was successfully loaded" in jupyter.log
    assert "Extension endpoints without @allow_unauthenticated" not in jupyter.log


@pytest.mark.parametrize("token", [None, "another"])
@pytest.mark.parametrize(("method", "path"), DOORS)
def test_nobody_gets_in_without_jupyters_token(jupyter, method, path, token):
    answer = jupyter.client(token).request(method, path)
    assert answer.status_code in (401, 403)
    assert not (jupyter.root / "01_three_cells.ipynb").exists()


def test_looking_starts_nothing(jupyter):
    client = jupyter.client()
    status = client.get("status")
    assert status.headers["cache-control"] == "no-store"
    assert status.json() == {
        "state": "stopped",
        "kind": "sandbox",
        "version": None,
        "protocol": 1,
        "identity": None,
        "message": "The sandbox is not running; start it in the panel, or with "
        "%ts_login --sandbox.",
    }
    refused = client.get("platform/api/v1/whoami")
    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "unavailable"
    assert "%ts_login --sandbox" in refused.json()["detail"]
    assert not (jupyter.home / "sandbox.json").exists()


def test_a_start_is_shared_by_everybody_who_asks(jupyter):
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: jupyter.client().post("start"), range(4)))
    told = [answer.json() for answer in answers]
    assert all(one == told[0] for one in told)
    assert told[0]["state"] == "running"
    assert told[0]["kind"] == "sandbox"
    assert told[0]["version"] == __version__
    assert told[0]["message"] is None
    assert Identity.model_validate(told[0]["identity"]).environment == "sandbox"
    assert jupyter.client().get("status").json() == told[0]
    assert sandbox.status(jupyter.home) is not None


def test_a_cookie_alone_changes_nothing(jupyter, browser):
    page = jupyter.client(None, follow_redirects=True)
    page.get(f"http://127.0.0.1:{jupyter.port}{BASE}api/status", params={"token": TOKEN})
    assert page.get("status").status_code == 200
    page.get(f"http://127.0.0.1:{jupyter.port}{BASE}login")
    xsrf = page.cookies["_xsrf"]
    for method, path in DOORS:
        if method in ("POST", "PUT", "DELETE", "PATCH"):
            assert page.request(method, path, content=b"{}").status_code == 403, path
    assert page.post("start", headers={"X-XSRFToken": xsrf}).status_code == 200
    made = page.post(
        "platform/api/v1/models", json={"name": "by-cookie"}, headers={"X-XSRFToken": xsrf}
    )
    assert made.status_code == 201, made.text


def test_pages_of_other_sites_read_nothing_with_a_cookie(jupyter, browser):
    page = jupyter.client(None, follow_redirects=True)
    page.get(f"http://127.0.0.1:{jupyter.port}{BASE}api/status", params={"token": TOKEN})
    foreign = {"Origin": "http://evil.example.org"}
    for path in ("status", "platform/api/v1/whoami", "tutorials"):
        assert page.get(path, headers=foreign).status_code == 404


def test_a_platform_that_hangs_does_not_hang_jupyter(jupyter, browser):
    pid = sandbox.status(jupyter.home).pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(jupyter.client().get, "status")
            time.sleep(0.2)
            slowest = 0.0
            while not asked.done():
                began = time.monotonic()
                assert jupyter.client(None).get(f"{jupyter.url}api").status_code == 200
                slowest = max(slowest, time.monotonic() - began)
            told = asked.result().json()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert slowest < 1.0
    assert told["state"] == "unreachable"
    assert told["message"] == (
        f"The sandbox (process {pid}) is running but does not answer; try again soon."
    )
    assert browser.get("status").json()["state"] == "running"


def test_a_start_that_fails_says_why_and_where_to_look(jupyter, browser):
    sandbox.stop(jupyter.home)
    database = jupyter.home / "platform.db"
    good = database.read_bytes()
    for file in jupyter.home.glob("platform.db*"):
        file.unlink()
    database.write_bytes(b"this is no database, " * 100)
    try:
        told = browser.post("start").json()
        assert told["state"] == "stopped"
        assert "did not start" in told["message"]
        assert "platform.log" in told["message"]
    finally:
        database.write_bytes(good)
    assert browser.post("start").json()["state"] == "running"
