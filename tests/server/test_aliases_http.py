"""Aliases over HTTP, in a real platform process."""

from __future__ import annotations

import json
import secrets
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from alembic import command
from alembic.config import Config
from platform_process import (
    ARCHITECTURE,
    SIGNATURE,
    PlatformProcess,
    Run,
    initial_state,
    ok,
    refused,
)
from sqlalchemy import MetaData, insert, select

from truststram_lab.learning import weights
from truststram_lab.schemas.tables import ColumnStatistics, Statistics
from truststram_lab.server.security import scope_for
from truststram_lab.server.services.accounts import AccountsService
from truststram_lab.server.stores import migrations
from truststram_lab.server.stores.engine import open_engine, writing
from truststram_lab.server.stores.ids import new_id, timestamp
from truststram_lab.server.stores.tables import organisations, principals

ROW = {"age": 61.0, "dose": 0.5, "ward": "icu"}


def make_model(client: httpx.Client, name: str, versions: int = 0) -> str:
    """A model with so many versions, all of them different; returns its path."""
    ok(client.post("/api/v1/models", json={"name": name}))
    for seed in range(versions):
        add_version(client, name, seed)
    return f"/api/v1/models/{name}"


def add_version(client: httpx.Client, name: str, seed: int, **more: Any) -> dict[str, Any]:
    body = weights.encode(initial_state(seed))
    sha256 = weights.sha256_hex(body)
    ok(client.put(f"/api/v1/blobs/{sha256}", content=body))
    columns = [
        ColumnStatistics(name="age", count=9, missing=0, mean=60.0, variance=2.0),
        ColumnStatistics(name="dose", count=8, missing=1, mean=0.5, variance=0.1),
        ColumnStatistics(name="ward", count=9, missing=0, category_counts=[4, 5]),
    ]
    version = {
        "weights_sha256": sha256,
        "architecture": ARCHITECTURE.model_dump(),
        "signature": SIGNATURE.model_dump(),
        "statistics": Statistics(rows=9, sites=1, columns=columns).model_dump(),
        **more,
    }
    return ok(client.post(f"/api/v1/models/{name}/versions", json=version))


def named(model: dict[str, Any]) -> dict[str, int]:
    return {entry["alias"]: entry["version"] for entry in model["aliases"]}


def told(platform: PlatformProcess, model: str) -> list[tuple[str, dict[str, Any]]]:
    """What the organisation's stream says about the aliases of a model, oldest first."""
    rows = platform.sql(
        "SELECT type, CAST(data AS TEXT) FROM events WHERE stream = 'org' "
        "AND type LIKE 'model.alias%' ORDER BY sequence"
    )
    found = [(kind, json.loads(data)) for kind, data in rows]
    return [(kind, data) for kind, data in found if data["model"] == model]


def test_an_alias_goes_wherever_a_model_is_asked_for(platform: PlatformProcess) -> None:
    owner = platform.client()
    path = make_model(owner, "icu", 3)
    model = ok(owner.put(f"{path}/aliases/champion", json={"version": 2}))
    assert named(model) == {"champion": 2}
    [entry] = model["aliases"]
    assert entry["moved_by"] == ok(owner.get("/api/v1/whoami"))["name"]
    for seen in (ok(owner.get(path)), ok(owner.get("/api/v1/models"))["items"][0]):
        assert seen == model
    ids = f"/api/v1/models/{model['id']}"
    second = ok(owner.get(f"{path}/versions/2"))
    for ref in (path, ids):
        assert ok(owner.get(f"{ref}@champion")) == model
        assert ok(owner.get(f"{ref}%40champion")) == model
        assert ok(owner.get(f"{ref}/versions/@champion")) == second
        assert len(ok(owner.get(f"{ref}@champion/versions"))["items"]) == 3
        assert ok(owner.get(f"{ref}/versions/{second['label']}")) == second
    downloaded = owner.get(f"{path}/versions/@champion/download").content
    assert downloaded == owner.get(f"{path}/versions/2/download").content
    wanted = {"data": ROW, "explain": True}
    by_number = ok(owner.post("/api/v1/endpoints/icu:2/predict", json=wanted))["predictions"][0]
    for ref in ("icu@champion", f"{model['id']}@champion"):
        answer = ok(owner.post(f"/api/v1/endpoints/{ref}/predict", json=wanted))["predictions"][0]
        for field in ("model", "version", "probabilities", "explanation"):
            assert answer[field] == by_number[field]
    newest = ok(owner.post("/api/v1/endpoints/icu@latest/predict", json={"data": ROW}))
    assert newest["predictions"][0]["version"] == 3


def test_a_prediction_follows_an_alias_that_moves(platform: PlatformProcess) -> None:
    owner = platform.client()
    path = make_model(owner, "moving", 3)
    for version in (1, 3, 2, 3):
        ok(owner.put(f"{path}/aliases/champion", json={"version": version}))
        for _ in range(2):
            answer = ok(owner.post("/api/v1/endpoints/moving@champion/predict", json={"data": ROW}))
            assert answer["predictions"][0]["version"] == version
    ok(owner.delete(f"{path}/aliases/champion"))
    gone = owner.post("/api/v1/endpoints/moving@champion/predict", json={"data": ROW})
    assert refused(gone, 404, "model_not_found")["model_id"] == "moving@champion"


def test_a_deployment_stays_on_the_version_that_its_alias_named(platform: PlatformProcess) -> None:
    owner = platform.client()
    path = make_model(owner, "pinned", 3)
    ok(owner.put(f"{path}/aliases/champion", json={"version": 1}))
    made = ok(owner.post("/api/v1/deployments", json={"model": "pinned@champion"}))
    assert (made["version"], made["revision"], made["reference"]) == (1, 1, "pinned@champion")
    ok(owner.put(f"{path}/aliases/champion", json={"version": 2}))
    add_version(owner, "pinned", 9)
    assert ok(owner.get("/api/v1/deployments/pinned")) == made
    asked = ok(owner.post("/api/v1/endpoints/pinned/predict", json={"data": ROW}))
    assert asked["predictions"][0]["version"] == 1
    ok(owner.delete(f"{path}/aliases/champion"))
    assert ok(owner.get("/api/v1/deployments/pinned")) == made
    # a version by its number is no alias
    again = ok(owner.post("/api/v1/deployments", json={"model": "pinned:3"}))
    assert (again["version"], again["revision"], again["reference"]) == (3, 2, None)
    # an alias of what is deployed
    moved = ok(owner.put(f"{path}/aliases/champion", json={"version": "deployed"}))
    assert named(moved) == {"champion": 3}
    newest = ok(owner.post("/api/v1/deployments", json={"model": "pinned@latest"}))
    assert (newest["version"], newest["reference"]) == (4, None)


def test_a_change_is_told_once_and_the_same_again_is_none(platform: PlatformProcess) -> None:
    owner = platform.client()
    path = make_model(owner, "told", 2)
    first = ok(owner.put(f"{path}/aliases/champion", json={"version": 1}))
    assert ok(owner.put(f"{path}/aliases/champion", json={"version": "1.0.0"})) == first
    ok(owner.put(f"{path}/aliases/champion", json={}))
    ok(owner.delete(f"{path}/aliases/champion"))
    refused(owner.delete(f"{path}/aliases/champion"), 404, "model_not_found")
    by = ok(owner.get("/api/v1/whoami"))["name"]
    common = {"model": "told", "model_id": first["id"], "alias": "champion", "by": by}
    assert told(platform, "told") == [
        ("model.alias_moved", {**common, "version": 1, "former": None}),
        ("model.alias_moved", {**common, "version": 2, "former": 1}),
        ("model.alias_deleted", {**common, "version": 2}),
    ]


def test_a_repeated_request_moves_an_alias_once(platform: PlatformProcess) -> None:
    owner = platform.client()
    path = make_model(owner, "repeated", 2)
    key = {"Idempotency-Key": secrets.token_hex(8)}
    first = owner.put(f"{path}/aliases/champion", json={"version": 1}, headers=key)
    ok(owner.put(f"{path}/aliases/champion", json={"version": 2}))
    again = owner.put(f"{path}/aliases/champion", json={"version": 1}, headers=key)
    assert (again.json(), again.headers["idempotent-replay"]) == (first.json(), "true")
    assert named(ok(owner.get(path))) == {"champion": 2}


def test_moves_at_once_end_in_one_of_the_targets(platform: PlatformProcess) -> None:
    owner = platform.client()
    path = make_model(owner, "contended", 6)
    clients = [platform.client() for _ in range(6)]
    barrier = threading.Barrier(len(clients))

    def move(number: int) -> list[int]:
        barrier.wait(20)
        seen = []
        for turn in range(5):
            target = (number + turn) % 6 + 1
            answer = clients[number].put(f"{path}/aliases/champion", json={"version": target})
            seen.append(named(ok(answer))["champion"] - target)
        return seen

    with ThreadPoolExecutor(len(clients)) as pool:
        answers = list(pool.map(move, range(len(clients))))
    # everybody was told the state right after his own move
    assert {value for seen in answers for value in seen} == {0}
    history = told(platform, "contended")
    versions = [data["version"] for _, data in history]
    assert [data["former"] for _, data in history] == [None, *versions[:-1]]
    assert all(data["former"] != data["version"] for _, data in history)
    assert named(ok(owner.get(path))) == {"champion": versions[-1]}


def test_what_names_no_version_is_refused_with_the_way_out(platform: PlatformProcess) -> None:
    owner = platform.client()
    path = make_model(owner, "grammar")
    put = f"{path}/aliases/champion"
    none = refused(owner.put(put, json={"version": 1}), 404, "model_not_found")
    assert "no version yet" in none["detail"]
    add_version(owner, "grammar", 1)
    problem = refused(owner.put(put, json={"version": 7}), 404, "model_not_found")
    assert problem["detail"] == "Model 'grammar' has no version 7; the latest is 1."
    for version in (True, 0, -1, 10**9, 1.5, None, "", "x" * 256, [1], {"a": 1}):
        problem = refused(owner.put(put, json={"version": version}), 422, "invalid_input")
        assert problem["detail"] == (
            "version: write a version's number or label, 'latest' or 'deployed'."
        )
    refused(owner.put(put, json={"verison": 1}), 422, "invalid_input")
    for ref, words in (
        ("grammar:", "names no version after the ':'"),
        ("grammar@", "names no alias after the '@'"),
        ("grammar@a@b", "more than one version"),
        ("grammar:1@a", "more than one version"),
        ("grammar@a:1", "more than one version"),
        ("@champion", "names no model"),
        (":1", "names no model"),
    ):
        for answer in (
            owner.get(f"/api/v1/models/{ref}"),
            owner.post("/api/v1/deployments", json={"model": ref}),
            owner.post(f"/api/v1/endpoints/{ref}/predict", json={"data": ROW}),
        ):
            problem = refused(answer, 422, "invalid_input")
            assert words in problem["detail"]
            assert problem["field"] == "model"
    for answer in (
        owner.put(f"{path}:1/aliases/champion", json={"version": 1}),
        owner.get(f"{path}:1/versions/latest"),
    ):
        problem = refused(answer, 422, "invalid_input")
        assert "names a version where a model is meant; write 'grammar'" in problem["detail"]
    assert ok(owner.get(path))["aliases"] == []


def test_another_organisation_neither_sees_nor_moves_an_alias(platform: PlatformProcess) -> None:
    owner = platform.client()
    path = make_model(owner, "secret", 1)
    ok(owner.put(f"{path}/aliases/champion", json={"version": 1}))
    stranger = platform.client(another_owner(platform))
    for answer in (
        stranger.get(f"{path}@champion"),
        stranger.get(f"{path}/versions/@champion"),
        stranger.get(f"{path}/versions/@champion/download"),
        stranger.put(f"{path}/aliases/champion", json={"version": 1}),
        stranger.delete(f"{path}/aliases/champion"),
        stranger.post("/api/v1/deployments", json={"model": "secret@champion"}),
        stranger.post("/api/v1/endpoints/secret@champion/predict", json={"data": ROW}),
    ):
        problem = refused(answer, 404, "model_not_found")
        assert problem["choices"] == []
        assert "champion" not in problem["detail"].replace("secret@champion", "")
    # a model of theirs with the same name has its own
    make_model(stranger, "secret", 2)
    assert named(ok(stranger.put(f"{path}/aliases/champion", json={"version": 2}))) == {
        "champion": 2
    }
    assert named(ok(owner.get(path))) == {"champion": 1}


def another_owner(platform: PlatformProcess) -> str:
    """The token of another organisation's owner on the same platform."""
    engine = open_engine(platform.database_url)
    with writing(engine) as connection:
        organisation_id, owner_id, now = new_id("org"), new_id("usr"), timestamp()
        name = secrets.token_hex(4)
        connection.execute(
            insert(organisations).values(id=organisation_id, name=name, created_at=now)
        )
        connection.execute(
            insert(principals).values(
                id=owner_id,
                organisation_id=organisation_id,
                name="stranger",
                role="owner",
                created_at=now,
            )
        )
        token = AccountsService.issue(connection, [owner_id], "tsk", now)[0]
    engine.dispose()
    return token


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_whoever_may_register_a_version_may_move_an_alias(method: str) -> None:
    wanted = scope_for("POST", "/api/v1/models/icu/versions")
    assert scope_for(method, "/api/v1/models/icu/aliases/champion") == wanted == "models:write"


def test_an_alias_outlives_a_killed_platform(unstarted: PlatformProcess) -> None:
    platform = unstarted.start()
    path = make_model(platform.client(), "kept", 2)
    kept = ok(platform.client().put(f"{path}/aliases/champion", json={"version": 1}))
    platform.end(signal.SIGKILL)
    owner = platform.start().client()
    assert ok(owner.get(path)) == kept
    assert [kind for kind, _ in told(platform, "kept")] == ["model.alias_moved"]


def as_a_former_revision_had_it(url: str, revision: str) -> None:
    """Put the database's rows into the tables of ``revision``, as an old platform left them."""
    engine = open_engine(url)
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with writing(engine) as connection:
        newer = MetaData()
        newer.reflect(connection)
        rows = {
            table.name: [dict(row._mapping) for row in connection.execute(select(table))]
            for table in newer.tables.values()
        }
        newer.drop_all(connection)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        older = MetaData()
        older.reflect(connection)
        for table in older.sorted_tables:
            if rows[table.name] and table.name != "alembic_version":
                names = [column.name for column in table.columns]
                kept = [{name: row[name] for name in names} for row in rows[table.name]]
                connection.execute(insert(table), kept)
    engine.dispose()


@pytest.mark.parametrize(
    "revision",
    [
        *(pytest.param(each, marks=pytest.mark.long) for each in migrations.REVISIONS[:-2]),
        migrations.REVISIONS[-2],
    ],
)
def test_a_platform_of_a_former_version_goes_on_with_its_models(
    unstarted: PlatformProcess, revision: str
) -> None:
    platform = unstarted.start()
    run = Run(platform, "former", sites=1, rounds=1)
    run.play(0)
    run.play(1)
    run.wait("completed")
    path = "/api/v1/models/former"
    add_version(run.owner, "former", 5)
    before = {
        place: ok(run.owner.get(place))
        for place in (
            path,
            f"{path}/versions",
            "/api/v1/deployments/former",
            "/api/v1/runs/former-1",
        )
    }
    platform.end()
    as_a_former_revision_had_it(platform.database_url, revision)
    assert platform.sql("SELECT version_num FROM alembic_version") == [(revision,)]

    owner = platform.start().client()
    after = {place: ok(owner.get(place)) for place in before}
    address = "endpoint_url"  # another port, perhaps
    for found in (before, after):
        found["/api/v1/deployments/former"].pop(address)
    assert after == before
    assert after[path]["aliases"] == []
    asked = ok(owner.post("/api/v1/endpoints/former/predict", json={"data": ROW}))
    assert asked["predictions"][0]["version"] == 1
    ok(owner.put(f"{path}/aliases/champion", json={"version": 2}))
    moved = ok(owner.post("/api/v1/deployments", json={"model": "former@champion"}))
    assert (moved["version"], moved["reference"]) == (2, "former@champion")
