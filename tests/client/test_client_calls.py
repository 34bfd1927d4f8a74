"""The clients against a real platform."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import os
import signal
import threading
import time

import pytest
from tiny_models import create_version, weights_file

from truststram_lab import sandbox
from truststram_lab.client import AsyncTrustStramClient, TrustStramClient
from truststram_lab.exceptions import (
    AuthenticationError,
    ConflictError,
    InvalidInputError,
    ModelNotFoundError,
    NotFoundError,
    RunNotFoundError,
)
from truststram_lab.sandbox.process import is_alive


def test_who_am_i(client):
    identity = client.accounts.whoami()
    assert (identity.role, identity.environment) == ("owner", "sandbox")
    assert client.base_url == sandbox.ensure().url


@pytest.mark.parametrize("tail", ["", "/", "/api/v1", "/api/v1/"])
def test_an_address_works_with_and_without_the_api_path(client, tail):
    state = sandbox.ensure()
    with TrustStramClient(state.api_key, base_url=state.url + tail) as other:
        assert other.accounts.whoami() == client.accounts.whoami()


def test_a_wrong_key_is_refused(client):
    with (
        TrustStramClient("tsk_wrong", base_url=sandbox.ensure().url) as other,
        pytest.raises(AuthenticationError) as caught,
    ):
        other.accounts.whoami()
    assert "tsk_wrong" not in str(caught.value)


def test_what_is_put_can_be_got(client):
    content = os.urandom(200_000)
    assert client.blobs.put(content) == hashlib.sha256(content).hexdigest()
    assert client.blobs.put(content) == hashlib.sha256(content).hexdigest()
    assert client.blobs.get(hashlib.sha256(content).hexdigest()) == content


def test_a_model_and_its_versions(client):
    made = client.models.create("registry", description="tries")
    assert client.models.get("registry") == client.models.get(made.id) == made
    first = client.models.create_version(made, create_version(client, 1.0))
    second = client.models.create_version("registry", create_version(client, 3.0))
    assert [one.sequence for one in client.models.versions("registry").items] == [2, 1]
    assert client.models.version("registry", 1) == first
    assert client.models.version("registry") == second
    assert client.models.version(made, "latest") == second
    assert client.models.download("registry", 1) == weights_file(1.0)
    assert "registry" in {model.name for model in client.models.list(search="regis").items}
    with pytest.raises(ConflictError):
        client.models.create("registry")


def test_pages_follow_each_other(client):
    for number in range(5):
        client.models.create(f"page-{number}")
    names, cursor = [], None
    while True:
        page = client.models.list(limit=2, cursor=cursor, search="page-")
        names += [model.name for model in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(names) == [f"page-{number}" for number in range(5)]


def test_unknown_names_are_the_matching_errors(client, deployed):
    with pytest.raises(ModelNotFoundError) as caught:
        client.models.get("dosis")
    assert caught.value.model_id == "dosis"
    assert "dose" in (caught.value.choices or [])
    with pytest.raises(RunNotFoundError):
        client.runs.get("nothing-1")
    with pytest.raises(ModelNotFoundError):
        client.inference.predict("nothing", {"dose": 1.0})
    with pytest.raises(NotFoundError):
        client.blobs.get("0" * 64)


@pytest.mark.parametrize("name", ["", ".", "..", "../whoami", "a/b", "a b", "a%2Fb", "é", "x?y=1"])
def test_a_name_never_becomes_another_address(client, name):
    with pytest.raises((ModelNotFoundError, NotFoundError, InvalidInputError)):
        client.models.get(name)


def test_a_bad_name_is_refused_with_its_place(client):
    with pytest.raises(InvalidInputError, match="name='Not A Name'") as caught:
        client.models.create("Not A Name")
    assert caught.value.field == "name"


def test_a_prediction_is_the_networks(client, deployed):
    prediction = client.inference.predict(deployed, {"dose": 6.0})
    share = 1 / (1 + math.exp(-1.0))
    assert prediction.result == "yes"
    assert prediction.probabilities == pytest.approx({"no": 1 - share, "yes": share})
    assert (prediction.confidence_class, prediction.version) == ("yes", 1)
    assert client.inference.predict("dose:1", {"dose": 6.0}).label == "yes"
    version = client.models.version(deployed, 1)
    assert client.inference.predict(version, {"dose": 0}).label == "no"


def test_a_batch_keeps_its_order_and_explains_itself(client, deployed):
    rows = [{"dose": float(dose)} for dose in range(11)]
    found = client.inference.batch_predict(deployed, rows, explain=True)
    shares = [one.probabilities["yes"] for one in found]
    assert shares == sorted(shares)
    assert len(shares) == 11
    for one in found:
        told = one.explanation
        total = told.base_value + sum(part.contribution for part in told.contributions)
        assert total + told.residual == pytest.approx(told.output_value)


@pytest.mark.parametrize(
    "row", [{}, {"dose": 1.0, "more": 2.0}, {"dosse": 1.0}, {"dose": "much"}, {"dose": None}]
)
def test_a_row_that_does_not_fit_is_refused(client, deployed, row):
    with pytest.raises(InvalidInputError):
        client.inference.predict(deployed, row)


def test_a_row_that_no_json_can_carry_is_refused_here(client, deployed):
    with pytest.raises(InvalidInputError, match=r"data\.dose=nan"):
        client.inference.predict(deployed, {"dose": float("nan")})


def test_a_deployment_is_found_by_its_name(client, deployed):
    found = client.deployments.get(deployed)
    assert (found.model, found.version, found.status) == ("dose", 1, "ready")
    assert client.base_url in found.endpoint_url
    assert deployed in {one.name for one in client.deployments.list().items}


def test_a_hundred_predictions_at_once_in_a_running_loop(client, deployed):
    async def scenario() -> list[float]:
        async with AsyncTrustStramClient() as many:
            rows = [{"dose": float(number)} for number in range(100)]
            calls = [many.inference.predict(deployed, row) for row in rows]
            found = await asyncio.gather(*calls)
            assert (await many.models.get(deployed)).name == deployed
            return [one.probabilities["yes"] for one in found]

    shares = asyncio.run(scenario())
    expected = [1 / (1 + math.exp(5.0 - number)) for number in range(100)]
    assert shares == pytest.approx(expected, abs=1e-6)


def test_async_errors_are_the_same(client):
    async def scenario() -> None:
        async with AsyncTrustStramClient() as other:
            with pytest.raises(ModelNotFoundError):
                await other.models.get("nothing")

    asyncio.run(scenario())


def test_the_sync_client_works_inside_a_running_loop(client):
    async def scenario() -> str:
        return client.accounts.whoami().role

    assert asyncio.run(scenario()) == "owner"


def test_events_of_the_organisation_arrive_as_they_happen(client):
    with client.events.stream("org") as stream:
        client.models.create("announced")
        client.models.create_version("announced", create_version(client, 5.0))
        for event in stream:
            if event.type == "model.version_created" and event.data.get("model") == "announced":
                break
    assert event.stream == "org"


def test_events_from_now_on_leave_the_past_out(client):
    client.models.create("past")
    heard = threading.Event()

    def keep_creating() -> None:
        numbers = itertools.count()
        while not heard.wait(0.2):  # the stream opens when it is first asked for an event
            client.models.create(f"present-{next(numbers)}")

    maker = threading.Thread(target=keep_creating)
    maker.start()
    with client.events.stream("org", after="latest") as stream:
        first = next(stream).data["model"]

    async def scenario() -> object:
        async with (
            AsyncTrustStramClient() as other,
            other.events.stream("org", after="latest") as awaited,
        ):
            return (await anext(awaited)).data["model"]

    second = asyncio.run(scenario())
    heard.set()
    maker.join()
    assert str(first).startswith("present-")
    assert str(second).startswith("present-")
    assert first != second


def test_both_clients_outlive_a_killed_platform(client, deployed):
    before = sandbox.ensure().pid

    async def scenario() -> list[str]:
        async with AsyncTrustStramClient() as other:
            first = (await other.inference.predict(deployed, {"dose": 9.0})).label
            os.kill(before, signal.SIGKILL)
            while is_alive(before):
                await asyncio.sleep(0.02)
            calls = [other.inference.predict(deployed, {"dose": 9.0}) for _ in range(20)]
            return [first, *(one.label for one in await asyncio.gather(*calls))]

    assert asyncio.run(scenario()) == ["yes"] * 21
    assert client.inference.predict(deployed, {"dose": 1.0}).label == "no"
    assert sandbox.ensure().pid != before


def test_a_listener_outlives_a_killed_platform(client):
    with client.events.stream("org") as stream:
        client.models.create("before")
        client.models.create_version("before", create_version(client, 6.0))
        seen = [next(stream)]
        pid = sandbox.ensure().pid
        os.kill(pid, signal.SIGKILL)
        while is_alive(pid):
            time.sleep(0.02)
        client.models.create("after")
        client.models.create_version("after", create_version(client, 7.0))
        while seen[-1].data.get("model") != "after":
            seen.append(next(stream))
    numbers = [event.sequence for event in seen]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
