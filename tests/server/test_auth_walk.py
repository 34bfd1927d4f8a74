"""Every door is locked: walked route by route, so that a new one cannot be forgotten."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from platform_process import PlatformProcess, Run, ok, refused
from sqlalchemy import insert

from truststram_lab.server.app import build_api, build_services
from truststram_lab.server.routes import serving
from truststram_lab.server.services.accounts import ROLE_SCOPES, AccountsService
from truststram_lab.server.settings import Settings
from truststram_lab.server.stores.engine import open_engine, writing
from truststram_lab.server.stores.ids import new_id, timestamp
from truststram_lab.server.stores.tables import organisations, principals

OPEN = {
    ("GET", "/health"),
    ("POST", "/api/v1/device-auth/bootstrap"),
    ("POST", "/api/v1/device-auth/refresh"),
    ("POST", "/api/v1/device-auth/revoke"),
}
SITES = {
    ("GET", "/api/v1/whoami"),
    ("GET", "/api/v1/openapi.json"),
    ("POST", "/api/v1/devices/register"),
    ("GET", "/api/v1/training/rounds"),
    ("GET", "/api/v1/training/rounds/{round_id}/model"),
    ("PUT", "/api/v1/training/rounds/{round_id}/update"),
    ("POST", "/api/v1/training/rounds/{round_id}/state"),
    ("GET", "/api/v1/training/plans/{sha256}"),
    ("PUT", "/api/v1/training/description/{name}"),
    ("GET", "/api/v1/training/personalized/{name}"),
    ("PUT", "/api/v1/training/personalized/{name}"),
    ("GET", "/api/v1/federations/{name}/privacy"),
}


def _routes(tmp_path: Path) -> set[tuple[str, str]]:
    services = build_services(Settings(home=tmp_path))
    api = build_api(services)
    found = set(_walk(api))
    services.serving.close()
    services.engine.dispose()
    assert {path for _, path in found} >= set(api.openapi()["paths"])
    assert ("POST", serving.routes[0].path) in found
    return found


def _walk(router: object) -> Iterator[tuple[str, str]]:
    for route in router.routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from _walk(included)
        elif not isinstance(route, FastAPI):
            for method in route.methods - {"HEAD"}:
                yield method, route.path


def _ask(client: httpx.Client, method: str, path: str) -> httpx.Response:
    for name in ("ref", "name", "which", "sha256", "round_id", "id"):
        path = path.replace(f"{{{name}}}", "0" * 64)
    assert "{" not in path
    return client.request(method, path)


def test_no_route_answers_without_a_credential(platform: PlatformProcess, tmp_path: Path) -> None:
    routes = _routes(tmp_path)
    assert len(routes) > 25
    for token in (None, "tsk_wrong", "tss_" + secrets.token_urlsafe(32)):
        client = platform.client(token)
        for method, path in routes - OPEN:
            answer = _ask(client, method, path)
            refused(answer, 401, "authentication_failed")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        refused(client.get("/api/v1/no/such/door"), 401, "authentication_failed")
        assert ok(client.get("/health"))["status"] == "ok"


def test_a_site_may_do_nothing_but_take_part(platform: PlatformProcess, tmp_path: Path) -> None:
    run = Run(platform, "walked")
    site = run.clients[0]
    for method, path in _routes(tmp_path) - OPEN:
        answer = _ask(site, method, path)
        if (method, path) in SITES:
            assert answer.status_code != 403, (method, path)
        else:
            refused(answer, 403, "forbidden")
    # what it is, as it may see itself
    identity = ok(site.get("/api/v1/whoami"))
    assert (identity["role"], identity["name"]) == ("site", "walked/site 1")


def test_an_owner_does_not_take_part(platform: PlatformProcess, tmp_path: Path) -> None:
    owner = platform.client()
    for method, path in SITES:
        if "training" in path or "devices" in path:
            refused(_ask(owner, method, path), 403, "forbidden")


def test_other_schemes_than_bearer_are_refused(platform: PlatformProcess) -> None:
    key = platform.state()["api_key"]
    client = platform.client(None)
    for header in (f"Basic {key}", key, "Bearer", f"Bearer {key} {key}"):
        answer = client.get("/api/v1/whoami", headers={"Authorization": header})
        refused(answer, 401, "authentication_failed")
    assert ok(client.get("/api/v1/whoami", headers={"Authorization": f"bearer {key}"}))


def test_an_invitation_replaces_the_former_one_at_once(platform: PlatformProcess) -> None:
    run = Run(platform, "rotated")
    former = run.clients[0]
    assert ok(former.get("/api/v1/whoami"))["name"] == "rotated/site 1"
    invite = {"participants": ["site 1"]}
    fresh = ok(run.owner.post("/api/v1/federations/rotated/invite", json=invite))[0]["token"]
    refused(former.get("/api/v1/whoami"), 401, "authentication_failed")
    assert ok(platform.client(fresh).get("/api/v1/training/rounds"))[0]["run"] == run.name
    # the other site's credential still works
    assert ok(run.clients[1].get("/api/v1/whoami"))["name"] == "rotated/site 2"


def test_a_device_registers_once(platform: PlatformProcess) -> None:
    run = Run(platform, "devices")
    body = {"device_identifier": "devices/site 1", "org_id": "default", "platform": "python"}
    first = ok(run.clients[0].post("/api/v1/devices/register", json=body))
    assert ok(run.clients[0].post("/api/v1/devices/register", json=body)) == first
    # a sandbox is one user's, whatever organisation a document's snippet names
    other = {**body, "org_id": "another"}
    assert ok(run.clients[0].post("/api/v1/devices/register", json=other)) == first


@pytest.fixture
def stranger(platform: PlatformProcess) -> httpx.Client:
    """The owner of another organisation on the same platform."""
    engine = open_engine(platform.database_url)
    with writing(engine) as connection:
        organisation_id, owner_id, now = new_id("org"), new_id("usr"), timestamp()
        connection.execute(
            insert(organisations).values(
                id=organisation_id, name=secrets.token_hex(4), created_at=now
            )
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
    return platform.client(token)


def test_another_organisation_sees_nothing_of_ours(
    platform: PlatformProcess, stranger: httpx.Client
) -> None:
    run = Run(platform, "private", sites=1, rounds=1)
    run.play(0)
    run.play(1)
    run.wait("completed")
    model = ok(run.owner.get("/api/v1/models/private"))
    version = ok(run.owner.get("/api/v1/models/private/versions/1"))
    for listing in ("models", "runs", "federations", "deployments"):
        assert ok(stranger.get(f"/api/v1/{listing}"))["items"] == []
    for path in (
        "models/private",
        f"models/{model['id']}",
        "models/private/versions/1/download",
        f"blobs/{version['weights_sha256']}",
        f"runs/{run.name}",
        f"runs/{run.id}",
        "deployments/private",
    ):
        answer = stranger.get(f"/api/v1/{path}")
        assert answer.status_code == 404, path
        assert answer.json().get("choices", []) == []
    for path in (f"runs/{run.id}/stop", f"runs/{run.id}/resume", "endpoints/private/predict"):
        body = {"data": {"age": 1.0}} if "predict" in path else None
        assert stranger.post(f"/api/v1/{path}", json=body).status_code == 404, path
    invite = {"participants": ["site 1"]}
    refused(stranger.post("/api/v1/federations/private/invite", json=invite), 404, "not_found")
    stream = stranger.get("/api/v1/events", params={"stream": f"run:{run.id}"})
    refused(stream, 404, "run_not_found")


def test_the_same_names_live_side_by_side(
    platform: PlatformProcess, stranger: httpx.Client
) -> None:
    name = {"name": "shared-name"}
    ours = ok(platform.client().post("/api/v1/models", json=name))
    theirs = ok(stranger.post("/api/v1/models", json=name))
    assert ours["id"] != theirs["id"]
    assert ok(stranger.get("/api/v1/models/shared-name"))["id"] == theirs["id"]


def test_every_role_is_part_of_the_owners() -> None:
    assert ROLE_SCOPES["member"] < ROLE_SCOPES["owner"]
    assert ROLE_SCOPES["observer"] < ROLE_SCOPES["member"]
    assert "training:participate" not in ROLE_SCOPES["owner"]


def test_an_invitation_can_keep_the_former_ones_but_not_forever(platform: PlatformProcess) -> None:
    run = Run(platform, "kept")
    first = run.clients[0]
    invite = {"participants": ["site 1"], "keep": True}
    path = "/api/v1/federations/kept/invite"
    tokens = [ok(run.owner.post(path, json=invite))[0]["token"] for _ in range(7)]
    assert ok(first.get("/api/v1/whoami"))["name"] == "kept/site 1"
    for token in tokens:
        assert ok(platform.client(token).get("/api/v1/whoami"))["name"] == "kept/site 1"
    ok(run.owner.post(path, json=invite))
    refused(first.get("/api/v1/whoami"), 401, "authentication_failed")
    assert ok(platform.client(tokens[0]).get("/api/v1/whoami"))["name"] == "kept/site 1"
