"""A change with an Idempotency-Key happens once, whatever is repeated and whenever."""

from __future__ import annotations

import hashlib
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from platform_process import PlatformProcess, Run, ok, plan_of, refused
from sqlalchemy import insert, update

from truststram_lab.exceptions import ConflictError, InvalidInputError
from truststram_lab.server.stores import claims
from truststram_lab.server.stores.engine import open_engine, writing
from truststram_lab.server.stores.migrations import upgrade
from truststram_lab.server.stores.tables import idempotency_keys, organisations, principals


def _key(text: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": text or str(uuid.uuid4())}


def test_a_repetition_gets_the_same_answer_and_changes_nothing(platform: PlatformProcess) -> None:
    owner, key = platform.client(), _key()
    first = owner.post("/api/v1/models", json={"name": "once"}, headers=key)
    again = owner.post("/api/v1/models", json={"name": "once"}, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert "idempotent-replay" not in first.headers
    assert again.headers["idempotent-replay"] == "true"
    assert again.headers["content-type"] == first.headers["content-type"]
    # without the key it is a second model of that name
    refused(owner.post("/api/v1/models", json={"name": "once"}), 409, "conflict")


def test_a_repeated_run_is_one_run(platform: PlatformProcess) -> None:
    run, key = Run(platform, "one-run"), _key()
    plan = plan_of("one-run", run.names, 2, run.created["plan"]["initial_weights_sha256"])
    answers = [ok(run.owner.post("/api/v1/runs", json=plan, headers=key)) for _ in range(3)]
    assert {answer["name"] for answer in answers} == {"one-run-2"}
    found = ok(run.owner.get("/api/v1/runs", params={"search": "one-run"}))["items"]
    assert [item["name"] for item in found] == ["one-run-2", "one-run-1"]


def test_another_body_under_the_same_key_is_refused(platform: PlatformProcess) -> None:
    owner, key = platform.client(), _key()
    ok(owner.post("/api/v1/models", json={"name": "body-a"}, headers=key))
    answer = owner.post("/api/v1/models", json={"name": "body-b"}, headers=key)
    assert refused(answer, 422, "invalid_input")["field"] == "Idempotency-Key"
    refused(owner.get("/api/v1/models/body-b"), 404, "model_not_found")


def test_a_key_counts_for_one_caller_method_and_path(platform: PlatformProcess) -> None:
    run, key = Run(platform, "scoped"), _key()
    ok(run.owner.post("/api/v1/federations", json={"name": "scoped-2"}, headers=key))
    ok(run.owner.post("/api/v1/models", json={"name": "scoped-2"}, headers=key))
    body = {"device_identifier": "x"}
    devices = [
        ok(client.post("/api/v1/devices/register", json=body, headers=key))
        for client in run.clients
    ]
    assert devices[0]["id"] != devices[1]["id"]


def test_a_refusal_is_repeated_too(platform: PlatformProcess) -> None:
    owner, key = platform.client(), _key()
    first = owner.post("/api/v1/models", json={"name": "No Name"}, headers=key)
    again = owner.post("/api/v1/models", json={"name": "No Name"}, headers=key)
    assert first.status_code == again.status_code == 422
    assert again.headers["idempotent-replay"] == "true"
    assert again.content == first.content


def test_many_at_once_make_one_change(platform: PlatformProcess) -> None:
    key, clients = _key(), [platform.client() for _ in range(8)]

    def create(number: int) -> int:
        answer = clients[number].post("/api/v1/models", json={"name": "crowd"}, headers=key)
        if answer.status_code == 409:  # the first one is still in flight
            assert answer.headers["retry-after"] == "1"
        return answer.status_code

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(create, range(8)))
    assert set(found) <= {201, 409}
    assert 201 in found
    assert clients[0].post("/api/v1/models", json={"name": "crowd"}, headers=key).is_success


def test_an_invitation_is_repeated_without_storing_its_token(platform: PlatformProcess) -> None:
    run, key = Run(platform, "sealed"), _key()
    path, body = "/api/v1/federations/sealed/invite", {"participants": ["site 1"]}
    first = ok(run.owner.post(path, json=body, headers=key))
    assert ok(run.owner.post(path, json=body, headers=key)) == first
    token = first[0]["token"]
    assert ok(platform.client(token).get("/api/v1/whoami"))["name"] == "sealed/site 1"
    for file in platform.home.glob("platform.db*"):
        assert token.encode() not in file.read_bytes()
    [(kept,)] = platform.sql("SELECT COUNT(*) FROM idempotency_keys WHERE body IS NOT NULL")
    assert kept
    known = {row[0] for row in platform.sql("SELECT token_sha256 FROM credentials")}
    assert hashlib.sha256(token.encode()).hexdigest() in known


@pytest.mark.parametrize("key", ["", "x" * 256, "ü"])
def test_an_unusable_key_is_refused(platform: PlatformProcess, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    answer = platform.client().post("/api/v1/models", json={"name": "keyed"}, headers=headers)
    assert refused(answer, 422, "invalid_input")["field"] == "Idempotency-Key"


# The claims themselves, where a crash and a day's end can be played -----------------


@pytest.fixture
def engine(tmp_path: Path):
    made = open_engine(f"sqlite:///{tmp_path / 'claims.db'}")
    upgrade(made, "test")
    with writing(made) as connection:
        connection.execute(insert(organisations).values(id="org_1", name="o", created_at="t"))
        connection.execute(
            insert(principals).values(
                id="usr_1", organisation_id="org_1", name="p", role="owner", created_at="t"
            )
        )
    yield made
    made.dispose()


def _claim(**changes: str) -> claims.Claim:
    fields = {
        "principal_id": "usr_1",
        "method": "POST",
        "path": "/x",
        "key": "k",
        "body_sha256": "0" * 64,
        "instance": "this",
        "token": "tsk_secret",
    }
    return claims.Claim(**{**fields, **changes})


ANSWER = claims.Answer(201, "application/json", b'{"token": "tss_visible"}')


def test_a_claim_in_flight_is_not_taken_twice(engine) -> None:
    with writing(engine) as connection:
        assert _claim().take(connection) is None
        with pytest.raises(claims.InFlightError):
            _claim().take(connection)
        _claim().release(connection)
        assert _claim().take(connection) is None


def test_a_request_that_died_before_its_change_is_done_again(engine) -> None:
    with writing(engine) as connection:
        assert _claim(instance="died").take(connection) is None
        assert _claim().take(connection) is None


def test_a_request_that_died_after_its_change_is_not_done_again(engine) -> None:
    with writing(engine) as connection:
        died = _claim(instance="died")
        assert died.take(connection) is None
        died.mark_applied(connection)
        with pytest.raises(ConflictError, match="made its change"):
            _claim().take(connection)


def test_a_failure_after_the_change_does_not_let_it_happen_again(engine) -> None:
    with writing(engine) as connection:
        assert _claim().take(connection) is None
        _claim().mark_applied(connection)
        _claim().release(connection)
        with pytest.raises(ConflictError, match="made its change"):
            _claim().take(connection)


def test_only_the_callers_own_token_opens_the_answer(engine) -> None:
    with writing(engine) as connection:
        assert _claim().take(connection) is None
        _claim().complete(connection, ANSWER)
        assert _claim().take(connection) == ANSWER
        with pytest.raises(InvalidInputError):
            _claim(body_sha256="1" * 64).take(connection)
        with pytest.raises(ConflictError, match="replaced"):
            _claim(token="tsk_another").take(connection)
        stored = connection.exec_driver_sql("SELECT body FROM idempotency_keys").scalar_one()
        assert b"tss_visible" not in stored


def test_after_a_day_a_key_is_fresh(engine) -> None:
    with writing(engine) as connection:
        assert _claim().take(connection) is None
        _claim().complete(connection, ANSWER)
        long_ago = time.time() - claims.KEPT_S - 1
        connection.execute(update(idempotency_keys).values(created_at_s=long_ago))
        assert _claim().take(connection) is None
