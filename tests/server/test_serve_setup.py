"""The first administrator: one token, on the terminal only, once, within a day."""

from __future__ import annotations

import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from platform_process import Run, ok, refused, small_version
from serve_process import ServeProcess


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[ServeProcess]:
    made = ServeProcess(tmp_path / "home").start()
    yield made
    made.end()


def test_the_token_makes_one_owner_whose_key_is_shown_once(serving: ServeProcess) -> None:
    token, client = serving.token, serving.client()
    answer = client.post("/api/v1/setup", json={"token": token, "name": "Ada Lovelace"})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    key = made["api_key"]
    identity = ok(serving.client(key).get("/api/v1/whoami"))
    assert identity == made["identity"]
    assert (identity["name"], identity["role"]) == ("Ada Lovelace", "owner")
    assert identity["environment"] == "production"
    # a second use, by the right token or a wrong one
    for again in (token, "tsk_setup_wrong"):
        problem = refused(
            client.post("/api/v1/setup", json={"token": again, "name": "Eve"}), 409, "conflict"
        )
        assert "API key" in problem["detail"]
    assert key not in answer.request.url.path


def test_secrets_are_neither_stored_nor_logged(serving: ServeProcess) -> None:
    token, key = serving.token, serving.set_up()
    serving.client(key).get(f"/api/v1/models/{token}")
    serving.client(key).get(f"/api/v1/models/{key}")
    serving.end()
    for file in serving.home.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for secret in (token, key, token.rpartition("setup_")[2], key.partition("_")[2]):
                assert secret.encode() not in content, file
    assert "the first administrator was set up" in serving.log


def test_the_setup_token_opens_no_other_door(serving: ServeProcess) -> None:
    client = serving.client(serving.token)
    refused(client.get("/api/v1/whoami"), 401, "authentication_failed")
    refused(client.get("/api/v1/models"), 401, "authentication_failed")


def test_ten_wrong_tokens_lock_the_door_until_a_restart(serving: ServeProcess) -> None:
    client, token = serving.client(), serving.token
    for number in range(10):
        answer = client.post("/api/v1/setup", json={"token": f"tsk_setup_{number}", "name": "eve"})
        refused(answer, 401, "authentication_failed")
    right = {"token": token, "name": "ada"}
    problem = refused(client.post("/api/v1/setup", json=right), 429, "rate_limited")
    assert "restart" in problem["detail"]
    serving.end()
    serving.start()
    assert serving.token != token
    refused(serving.client().post("/api/v1/setup", json=right), 401, "authentication_failed")
    assert serving.set_up()


def test_parallel_guesses_are_counted_one_by_one(serving: ServeProcess) -> None:
    statuses: list[int] = []

    def guess(number: int) -> None:
        body = {"token": f"tsk_setup_{number}", "name": "eve"}
        statuses.append(serving.client().post("/api/v1/setup", json=body).status_code)

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) == [401] * 10 + [429] * 15


def test_two_holders_of_the_token_do_not_both_become_owner(serving: ServeProcess) -> None:
    token, statuses = serving.token, []

    def try_it(name: str) -> None:
        body = {"token": token, "name": name}
        statuses.append(serving.client().post("/api/v1/setup", json=body).status_code)

    threads = [threading.Thread(target=try_it, args=(f"n{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) == [201] + [409] * 5


def test_a_token_of_yesterday_is_expired(serving: ServeProcess) -> None:
    with closing(sqlite3.connect(serving.home / "platform.db", timeout=20)) as database, database:
        database.execute("UPDATE credentials SET created_at = '2020-01-01T00:00:00.000000+00:00'")
    body = {"token": serving.token, "name": "ada"}
    for _ in range(12):  # who has the right one is not guessing
        answer = serving.client().post("/api/v1/setup", json=body)
        assert "24 hours" in refused(answer, 401, "authentication_failed")["detail"]


def test_a_request_that_is_no_setup_is_refused_by_its_field(serving: ServeProcess) -> None:
    client = serving.client()
    for body, field in (
        ({"name": "ada"}, "token"),
        ({"token": "x", "name": ""}, "name"),
        ({"token": "x", "name": "a\nb"}, "name"),
        ({"token": "x", "name": "ada", "role": "owner"}, "role"),
    ):
        problem = refused(client.post("/api/v1/setup", json=body), 422, "invalid_input")
        assert problem["field"] == field
    long = {"token": "x" * 20_000, "name": "ada"}
    refused(client.post("/api/v1/setup", json=long), 413, "payload_too_large")
    keyed = client.post(
        "/api/v1/setup", json={"token": "x", "name": "ada"}, headers={"Idempotency-Key": "k"}
    )
    refused(keyed, 401, "authentication_failed")


def test_killed_it_keeps_its_administrator_and_its_work(serving: ServeProcess) -> None:
    key = serving.set_up()
    made = ok(serving.client(key).post("/api/v1/models", json={"name": "kept"}))
    assert serving.end(signal.SIGKILL) == -signal.SIGKILL
    serving.start()
    assert "setup" not in serving.said
    assert ok(serving.client(key).get("/api/v1/models/kept")) == made
    refused(
        serving.client().post("/api/v1/setup", json={"token": "x", "name": "eve"}), 409, "conflict"
    )


def test_killed_before_the_setup_it_shows_a_new_token(serving: ServeProcess) -> None:
    former = serving.token
    serving.end(signal.SIGKILL)
    serving.start()
    assert serving.token != former
    assert serving.set_up()


# A lost key --------------------------------------------------------------------------

RESET = "--reset-administrator"


def test_a_lost_key_is_replaced_on_the_platforms_own_machine(serving: ServeProcess) -> None:
    former = serving.set_up()
    made = ok(serving.client(former).post("/api/v1/models", json={"name": "kept"}))
    serving.end()
    serving.start(RESET)
    assert "It has no administrator any more. Within 24 hours, once:" in serving.said
    refused(serving.client(former).get("/api/v1/whoami"), 401, "authentication_failed")
    # the same person, under the same name, or another
    key = serving.set_up()
    assert key != former
    identity = ok(serving.client(key).get("/api/v1/whoami"))
    assert (identity["name"], identity["role"]) == ("ada", "owner")
    assert ok(serving.client(key).get("/api/v1/models/kept")) == made
    serving.end()
    assert "the administrator was reset" in serving.log
    for secret in (former, key):
        assert secret not in serving.log
    # an ordinary start goes on with the new key, and shows no token
    serving.start()
    assert "setup token" not in serving.said
    assert ok(serving.client(key).get("/api/v1/whoami")) == identity
    refused(serving.client(former).get("/api/v1/whoami"), 401, "authentication_failed")
    # who was administrator stays in the records, under a name that says until when
    with closing(sqlite3.connect(serving.home / "platform.db", timeout=20)) as database:
        owners = database.execute("SELECT name FROM principals WHERE role = 'owner' ORDER BY name")
        names = [name for (name,) in owners]
    assert names[0] == "ada"
    assert len(names) == 2
    assert names[1].startswith("ada (until 2")


def test_a_reset_while_the_platform_runs_says_to_stop_it_and_changes_nothing(
    serving: ServeProcess,
) -> None:
    key = serving.set_up()
    told = serving.refusal(RESET)
    assert told == (
        f"A platform is running for {serving.home} already; stop it, and start it once with "
        "--reset-administrator."
    )
    assert ok(serving.client(key).get("/api/v1/whoami"))["role"] == "owner"


def test_a_reset_that_cannot_start_takes_no_key_away(serving: ServeProcess) -> None:
    key = serving.set_up()
    serving.end()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", serving.port))
        taken.listen()
        assert "cannot be used" in serving.refusal(RESET)
    serving.start()
    assert ok(serving.client(key).get("/api/v1/whoami"))["role"] == "owner"


def test_a_folder_without_a_platform_has_nobody_to_reset(tmp_path: Path) -> None:
    nobody = ServeProcess(tmp_path / "typo")
    assert nobody.refusal(RESET) == (
        f"{nobody.home} holds no standing platform whose administrator could be reset; check "
        "--home."
    )
    assert not nobody.home.exists()


def test_killed_after_a_reset_it_still_waits_for_its_administrator(serving: ServeProcess) -> None:
    former = serving.set_up()
    serving.end()
    serving.start(RESET)
    first = serving.token
    serving.end(signal.SIGKILL)
    serving.start()
    assert serving.token != first
    refused(serving.client(former).get("/api/v1/whoami"), 401, "authentication_failed")
    assert serving.set_up()


# Results and deployments ---------------------------------------------------------------


def test_a_deployment_without_an_environment_goes_to_the_platforms_own(
    serving: ServeProcess,
) -> None:
    client = serving.client(serving.set_up())
    ok(client.post("/api/v1/models", json={"name": "icu"}))
    version = small_version(client)
    ok(client.post("/api/v1/models/icu/versions", json=version))
    for body in ({"model": "icu"}, {"model": "icu", "environment": None}):
        assert ok(client.post("/api/v1/deployments", json=body))["environment"] == "production"
    named = {"model": "icu", "environment": "trial"}
    assert ok(client.post("/api/v1/deployments", json=named))["environment"] == "trial"
    assert ok(client.get("/api/v1/models/icu"))["deployed_version"] == 1
    found = ok(client.get("/api/v1/deployments/icu"))
    assert (found["environment"], found["revision"]) == ("production", 1)
    refusal = client.post("/api/v1/deployments", json={"model": "icu", "environment": "No!"})
    assert refused(refusal, 422, "invalid_input")["choices"] == ["production"]


def test_the_result_of_a_federation_is_registered_but_not_deployed(serving: ServeProcess) -> None:
    key = serving.set_up()

    class Standing:
        """The part of a platform's process that a run needs."""

        @staticmethod
        def client(token: str = key) -> object:
            return serving.client(token)

    run = Run(Standing(), "team", sites=2, rounds=1)
    run.play(0)
    run.play(1)
    done = run.wait("completed")
    assert done["deployed"] is False
    assert ok(run.owner.get("/api/v1/models/team/versions/latest"))["sequence"] == 1
    assert ok(run.owner.get("/api/v1/deployments"))["items"] == []


def test_a_device_names_the_organisation_of_its_credential(serving: ServeProcess) -> None:
    owner = serving.client(serving.set_up())
    ok(owner.post("/api/v1/federations", json={"name": "icu"}))
    invited = ok(owner.post("/api/v1/federations/icu/invite", json={"participants": ["north"]}))
    site = serving.client(invited[0]["token"])
    body = {"device_identifier": "north-1", "org_id": "default", "platform": "python"}
    assert ok(site.post("/api/v1/devices/register", json=body))["id"]
    wrong = site.post("/api/v1/devices/register", json={**body, "org_id": "org_123"})
    assert "set org_id to 'default'" in refused(wrong, 403, "forbidden")["detail"]
