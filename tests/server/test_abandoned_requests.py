"""A caller that hangs up in the middle of a request: no failure of the platform, and no trace."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from platform_process import PlatformProcess, Run, digest, moments_of, ok
from raw_upload import abandon, line_of

MEGABYTE = 2**20


def files(platform: PlatformProcess) -> set[str]:
    """Every file of the store, those on their way in included."""
    blobs = platform.home / "blobs"
    return {str(file.relative_to(blobs)) for file in blobs.rglob("*") if file.is_file()}


def check_calm(platform: PlatformProcess, request: str) -> None:
    line = line_of(platform, request)
    assert (line["status"], line["bytes_out"]) == (499, 0)
    assert "Traceback" not in platform.log
    levels = {json.loads(entry)["level"] for entry in platform.log.splitlines()}
    assert levels <= {"INFO", "info"}, levels


@pytest.mark.parametrize("sent", [0, 10, MEGABYTE + 10])
def test_an_abandoned_file_leaves_nothing(unstarted: PlatformProcess, sent: int) -> None:
    unstarted.start()
    key, before = unstarted.state()["api_key"], files(unstarted)
    content = bytes(3 * MEGABYTE)
    request = f"PUT /api/v1/blobs/{hashlib.sha256(content).hexdigest()}"
    incoming = unstarted.home / "blobs" / "incoming"

    def half_written() -> bool:
        return sent < MEGABYTE or any(f.stat().st_size >= MEGABYTE for f in incoming.iterdir())

    abandon(unstarted, request, key, sent=content[:sent], announced=len(content), hold=half_written)
    check_calm(unstarted, request)
    assert files(unstarted) == before
    # and the same file can be given as if nothing had been
    answer = unstarted.client().put(request.removeprefix("PUT "), content=content)
    assert answer.status_code == 201


def test_an_abandoned_update_leaves_the_round_as_it_was(unstarted: PlatformProcess) -> None:
    run = Run(unstarted.start(), "left", sites=2, rounds=1)
    round_id, body = run.assignment(0)["round_id"], moments_of(0)
    before, events = files(unstarted), run.get()["last_event"]
    request = f"PUT /api/v1/training/rounds/{round_id}/update"
    abandon(
        unstarted,
        request,
        run.tokens[0],
        sent=body[:-1],
        announced=len(body),
        headers=digest(body),
    )
    check_calm(unstarted, request)
    assert files(unstarted) == before
    assert (run.get()["pushed"], run.get()["last_event"]) == ([], events)
    assert ok(run.push(0, round_id, body))["duplicate"] is False


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}])
def test_an_abandoned_json_body_changes_nothing(
    unstarted: PlatformProcess, headers: dict[str, str]
) -> None:
    unstarted.start()
    body = json.dumps({"name": "half"}).encode()
    request = "POST /api/v1/models"
    abandon(
        unstarted,
        request,
        unstarted.state()["api_key"],
        sent=body[:-1],
        announced=len(body),
        headers={"Content-Type": "application/json", **headers},
    )
    check_calm(unstarted, request)
    client = unstarted.client()
    assert ok(client.get("/api/v1/models"))["items"] == []
    made = client.post("/api/v1/models", json={"name": "half"}, headers=headers)
    assert made.status_code == 201, made.text


def test_an_abandoned_prediction_is_no_failure(unstarted: PlatformProcess) -> None:
    unstarted.start()
    request = "POST /api/v1/endpoints/icu/predict"
    abandon(unstarted, request, unstarted.state()["api_key"], sent=b'{"data": ', announced=500)
    check_calm(unstarted, request)
    missing: dict[str, Any] = (
        unstarted.client().post(request.removeprefix("POST "), json={"data": {"a": 1}}).json()
    )
    assert missing["code"] == "model_not_found"
