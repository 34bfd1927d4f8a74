from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from served_models import BINARY, architecture_of, rows_of, statistics_of, weights_of

from truststram_lab.learning.weights import sha256_hex
from truststram_lab.schemas.registry import CreateVersion
from truststram_lab.schemas.serving import PredictResponse
from truststram_lab.server.app import build_app, build_services
from truststram_lab.server.settings import Settings


@contextmanager
def served(services):
    """The real application on a real socket; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        host = f"127.0.0.1:{bound.getsockname()[1]}"
        app = build_app(services, [host])
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.01)
        try:
            yield f"http://{host}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    services = build_services(Settings(home=tmp_path_factory.mktemp("home")))
    key = services.accounts.ensure_owner(None)
    with (
        served(services) as address,
        httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=120,
            trust_env=False,
        ) as made,
    ):
        for seed, name in enumerate(("icu", "shelf")):
            body = weights_of(architecture_of(BINARY), seed)
            digest = sha256_hex(body)
            assert made.put(f"/api/v1/blobs/{digest}", content=body).status_code == 201
            assert made.post("/api/v1/models", json={"name": name}).status_code == 201
            version = CreateVersion(
                weights_sha256=digest,
                architecture=architecture_of(BINARY),
                signature=BINARY,
                statistics=statistics_of(BINARY),
            )
            answer = made.post(
                f"/api/v1/models/{name}/versions", json=version.model_dump(mode="json")
            )
            assert answer.status_code == 201
        assert made.post("/api/v1/deployments", json={"model": "icu"}).status_code == 201
        yield made


def ask(client, ref, body):
    content = body if isinstance(body, str) else json.dumps(body)
    return client.post(f"/api/v1/endpoints/{ref}/predict", content=content)


def test_a_deployment_tells_where_it_is_reached(client):
    (one,) = client.get("/api/v1/deployments").json()["items"]
    assert one == client.get("/api/v1/deployments/icu").json()
    assert one["endpoint_url"] == f"{client.base_url}/api/v1/endpoints/icu/predict"
    answer = client.post(one["endpoint_url"], json={"data": rows_of(BINARY, 1)[0]})
    assert answer.status_code == 200


@pytest.mark.parametrize("count", [1, 8, 9, 500])
@pytest.mark.parametrize("ref", ["icu", "icu:1"])
def test_few_rows_and_many_take_different_ways_to_the_same_answer(client, ref, count):
    rows = rows_of(BINARY, count)
    answer = ask(client, ref, {"data": rows})
    assert answer.status_code == 200
    found = PredictResponse.model_validate(answer.json()).predictions
    assert len(found) == count
    again = PredictResponse.model_validate(ask(client, ref, {"data": rows[-1]}).json()).predictions
    assert again[0].confidence == pytest.approx(found[-1].confidence, abs=1e-12)
    assert again[0].prediction_id != found[-1].prediction_id


def test_an_explanation_comes_when_asked_for(client):
    for _ in range(2):
        answer = ask(client, "icu", {"data": rows_of(BINARY, 2), "explain": True})
        (first, _) = answer.json()["predictions"]
        assert first["explanation"]["method"] == "exact_shapley"
        assert first["explanation"]["explained_class"] == "died"


ROW = json.dumps(rows_of(BINARY, 1)[0])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (f'{{"data": {ROW[:-1]}, "age": 2}}}}', "'age' twice"),
        ('{"data": {"age": NaN}}', "NaN is not a JSON number"),
        ('{"data": {"age": 1e999}}', "beyond the largest number"),
        ('{"data": ', "not JSON"),
        (f'{{"data": {ROW}, "explian": true}}', "explian"),
        ("[]", "dictionary"),
        ('{"data": []}', "has 0 rows"),
        ('{"data": {"age": 1}}', "is missing"),
    ],
)
def test_a_body_that_cannot_be_meant_is_refused_in_words(client, body, told):
    ask(client, "icu", {"data": json.loads(ROW)})
    answer = ask(client, "icu", body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert told in answer.json()["detail"]


def test_what_is_not_there_is_404_with_the_nearest(client):
    for ref, told in (("ico", "did you mean 'icu'"), ("shelf", "registered but not deployed")):
        answer = ask(client, ref, {"data": json.loads(ROW)})
        assert answer.status_code == 404
        assert answer.json()["code"] == "model_not_found"
        assert answer.json()["model_id"] == ref
        assert told in answer.json()["detail"]
    assert client.get("/api/v1/deployments/ico").status_code == 404
    assert client.post("/api/v1/deployments", json={"model": "ico"}).status_code == 404


def test_nobody_predicts_without_a_credential(client):
    answer = client.post(
        "/api/v1/endpoints/icu/predict",
        content=json.dumps({"data": json.loads(ROW)}),
        headers={"Authorization": ""},
    )
    assert answer.status_code == 401


def test_deploying_once_more_with_the_same_key_repeats_the_answer(client):
    headers = {"Idempotency-Key": "deploy-icu"}
    first = client.post("/api/v1/deployments", json={"model": "icu:1"}, headers=headers)
    again = client.post("/api/v1/deployments", json={"model": "icu:1"}, headers=headers)
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replay"] == "true"
