"""Deployments and models are taken away whole, and never from under somebody."""

from __future__ import annotations

import signal
import threading

import pytest
from platform_process import PlatformProcess, Run, ok, refused, small_version
from test_prediction_log import deployed

from truststram_lab.client import TrustStramClient
from truststram_lab.exceptions import ConflictError, ModelNotFoundError, NotFoundError

ROW = {"data": {"dose": 1.0}}


def test_a_model_goes_once_nothing_serves_it_and_its_name_is_free(
    platform: PlatformProcess,
) -> None:
    owner = platform.client()
    address = deployed(owner, "gone")
    ok(owner.put("/api/v1/models/gone/aliases/champion", json={"version": 1}))
    told = refused(owner.delete("/api/v1/models/gone"), 409, "conflict")
    assert "%ts_deployments gone delete" in told["detail"]
    ok(owner.post(address, json=ROW))
    assert owner.delete("/api/v1/deployments/gone").status_code == 204
    refused(owner.post(address, json=ROW), 404, "model_not_found")
    ok(owner.post("/api/v1/endpoints/gone:1/predict", json=ROW))
    refused(owner.delete("/api/v1/deployments/gone"), 404, "not_found")
    assert owner.delete("/api/v1/models/gone").status_code == 204
    for path in ("models/gone", "models/gone/versions/1", "models/gone@champion"):
        refused(owner.get(f"/api/v1/{path}"), 404, "model_not_found")
    refused(owner.post("/api/v1/endpoints/gone:1/predict", json=ROW), 404, "model_not_found")
    refused(owner.delete("/api/v1/models/gone"), 404, "model_not_found")
    again = ok(owner.post("/api/v1/models", json={"name": "gone"}))
    assert again["version_count"] == 0
    ok(owner.post("/api/v1/models/gone/versions", json=small_version(owner)))
    assert ok(owner.post("/api/v1/endpoints/gone:1/predict", json=ROW))
    told = platform.sql("SELECT type, data FROM events WHERE stream = 'org' ORDER BY sequence")
    assert [kind for kind, data in told if '"gone"' in str(data).replace("'", '"')][-4:] == [
        "deployment.deleted",
        "model.deleted",
        "model.created",
        "model.version_created",
    ]


def test_one_version_is_not_deleted(platform: PlatformProcess) -> None:
    owner = platform.client()
    deployed(owner, "whole")
    for ref in ("whole:1", "whole@latest"):
        told = refused(owner.delete(f"/api/v1/models/{ref}"), 422, "invalid_input")
        assert "delete 'whole' as a whole" in told["detail"]


def test_a_model_that_is_being_trained_stays(platform: PlatformProcess) -> None:
    owner = platform.client()
    ok(owner.post("/api/v1/models", json={"name": "trained"}))
    run = Run(platform, "trained")
    told = refused(owner.delete("/api/v1/models/trained"), 409, "conflict")
    assert f"%ts_runs {run.name} stop" in told["detail"]
    ok(owner.post(f"/api/v1/runs/{run.name}/stop"))
    assert owner.delete("/api/v1/models/trained").status_code == 204
    assert run.get()["status"] == "stopped"


def test_of_two_environments_the_named_one_ends(platform: PlatformProcess) -> None:
    owner = platform.client()
    address = deployed(owner, "both")
    ok(owner.post("/api/v1/deployments", json={"model": "both", "environment": "trial"}))
    answer = owner.delete("/api/v1/deployments/both", params={"environment": "trial"})
    assert answer.status_code == 204
    left = ok(owner.get("/api/v1/deployments", params={"search": "both"}))["items"]
    assert [each["environment"] for each in left] == ["sandbox"]
    ok(owner.post(address, json=ROW))


@pytest.mark.long
def test_what_was_deleted_stays_deleted_after_a_kill(unstarted: PlatformProcess) -> None:
    unstarted.start()
    owner = unstarted.client()
    deployed(owner, "icu")
    assert owner.delete("/api/v1/deployments/icu").status_code == 204
    assert owner.delete("/api/v1/models/icu").status_code == 204
    unstarted.end(signal.SIGKILL)
    owner = unstarted.start().client()
    assert ok(owner.get("/api/v1/models"))["items"] == []
    assert ok(owner.get("/api/v1/deployments"))["items"] == []


def test_six_who_make_a_model_at_once_get_the_same(platform: PlatformProcess) -> None:
    key = platform.state()["api_key"]
    found: list[str] = []

    def make() -> None:
        with TrustStramClient(key, base_url=platform.url) as client:
            found.append(client.models.ensure("shared", framework="pytorch").id)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 6
    assert len(set(found)) == 1
    with TrustStramClient(key, base_url=platform.url) as client:
        with pytest.raises(ConflictError, match="framework 'pytorch', not 'tensorflow'"):
            client.models.ensure("shared", framework="tensorflow")
        with pytest.raises(ConflictError, match="type None, not 'regression'"):
            client.models.ensure("shared", type="regression")
        client.models.delete("shared")
        with pytest.raises(ModelNotFoundError):
            client.models.delete("shared")
        with pytest.raises(NotFoundError):
            client.deployments.delete("shared")
