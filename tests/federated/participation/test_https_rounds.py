"""The EdgeML documents' client, through rounds of a real platform."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from tiny_runs import SIGNATURE, open_run, start_state

from truststram_lab.client import TrustStramClient
from truststram_lab.exceptions import (
    AuthenticationError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    RoundClosedError,
    UpdateRejectedError,
)
from truststram_lab.federated import FederatedClient, SitePolicy
from truststram_lab.federated.participation import Outbox, outbox_folder
from truststram_lab.learning import weights
from truststram_lab.learning.statistics import local_moments


@pytest.fixture(scope="module")
def platform(shared_home):
    with TrustStramClient(environment="sandbox") as opened:
        yield opened


def open_training(platform, name, rounds=2):
    """A run whose statistics are in: its next round trains. Returns (run, token)."""
    run, tokens = open_run(platform, name, ["a"], rounds)
    with platform.participant(tokens["a"]) as site:
        [found] = site.assignments()
        moments = local_moments({"dose": np.arange(10.0)}, SIGNATURE)
        site.push(found.round_id, weights.encode(moments, {"sample_count": "10", "metrics": "{}"}))
        assert site.assignments(20)[0].kind == "training"
    return run, tokens["a"]


def device(token, name, **more):
    return FederatedClient(
        auth_token_provider=lambda: token, org_id="default", device_identifier=name, **more
    )


def plus_one(state):
    assert isinstance(state["layers.0.weight"], torch.Tensor)
    return {name: value + 1 for name, value in state.items()}, 10, {"loss": 0.25}


def test_the_documented_loop_brings_a_run_to_its_end(platform):
    run, token = open_training(platform, "documented", rounds=2)
    seen = []
    client = device(token, "documented-device", on_state=seen.append)
    device_id = client.register()
    assert client.register() == device_id
    rounds = 0
    while platform.runs.get(run.id).status == "training":
        assignment = client.get_round_assignment()
        if assignment is None:
            continue  # the platform is averaging
        assert assignment["round_id"] == assignment["id"]
        assert assignment["config"]["batch_size"] == 16
        result = client.participate_in_round(
            round_id=assignment["round_id"], local_train_fn=plus_one
        )
        assert (result["status"], result["duplicate"]) == ("accepted", False)
        rounds += 1
    done = platform.runs.get(run.id)
    assert (rounds, done.status) == (2, "completed")
    assert client.get_round_assignment() is None
    final, _ = weights.decode(platform.models.download("documented", done.model_version))
    for name, array in start_state().items():
        assert np.array_equal(final[name], array + 2)
    assert [event.state for event in seen][:2] == ["offered", "accepted"]
    assert [event.state for event in client.events][-1] == "completed"
    client.close()


def test_registration_sends_four_fields_and_no_others(platform):
    _, token = open_training(platform, "four-fields")
    client = device(token, "four")
    client.register()
    [sent] = client._rounds.sent_log
    assert set(sent) == {"device_identifier", "org_id", "platform", "os_version"}
    assert (sent["device_identifier"], sent["platform"]) == ("four", "python")


def test_without_a_name_each_device_has_an_identifier_of_its_own():
    one, two = (FederatedClient(auth_token_provider=lambda: "x") for _ in range(2))
    assert one._rounds.device_identifier != two._rounds.device_identifier


def test_an_expired_token_is_an_error_and_not_no_round(platform):
    open_training(platform, "expired")
    client = device("tss_expired", "expired-device")
    with pytest.raises((AuthenticationError, PermissionDeniedError)):
        client.get_round_assignment()
    with pytest.raises(AuthenticationError, match="gave no token"):
        device("", "empty").get_round_assignment()


def test_a_refreshed_token_is_used_at_the_next_call(platform):
    _, token = open_training(platform, "refreshed")
    tokens = ["tss_old", token]
    client = FederatedClient(auth_token_provider=lambda: tokens[0], org_id="default")
    with pytest.raises((AuthenticationError, PermissionDeniedError)):
        client.get_round_assignment()
    tokens.pop(0)
    assert client.get_round_assignment()["kind"] == "training"


def test_a_wrong_answer_of_the_function_sends_nothing_and_the_round_stays_open(platform):
    run, token = open_training(platform, "wrong-answer")
    client = device(token, "wrong")
    open_round = client.get_round_assignment()["round_id"]
    with pytest.raises(UpdateRejectedError, match=r"'layers\.0\.bias' with 1 values of 1"):
        client.participate_in_round(
            open_round,
            lambda state: ({**state, "layers.0.bias": torch.tensor([float("nan")])}, 10, {}),
        )
    assert client.events[-1].state == "rejected_local"
    assert platform.runs.get(run.id).pushed == []
    assert client.get_round_assignment()["round_id"] == open_round
    assert client.participate_in_round(open_round, plus_one)["status"] == "accepted"


def test_a_round_that_is_not_there_is_named_with_the_open_one(platform):
    _, token = open_training(platform, "no-such-round")
    client = device(token, "no-such")
    open_round = client.get_round_assignment()["round_id"]
    with pytest.raises(NotFoundError, match=rf"'rnd_x'.*{open_round}"):
        client.participate_in_round("rnd_x", plus_one)
    client.participate_in_round(open_round, plus_one)
    with pytest.raises(RoundClosedError, match="was taken already"):
        client.participate_in_round(open_round, plus_one)


def test_a_policy_declines_with_its_sentence(platform):
    run, token = open_training(platform, "declined")
    client = device(token, "declining", policy=SitePolicy(max_clip=1.0))
    with pytest.raises(PermissionDeniedError, match="This site clips updates to 1 or less"):
        client.participate_in_round(client.get_round_assignment()["round_id"], plus_one)
    assert platform.runs.get(run.id).pushed == []


def test_arrays_are_handed_out_where_they_are_asked_for(platform):
    _, token = open_training(platform, "numpy-format")
    client = device(token, "numpy")

    def train(state):
        assert isinstance(state["layers.0.weight"], np.ndarray)
        return state, 10, None

    round_id = client.get_round_assignment()["round_id"]
    with pytest.raises(InvalidInputError, match=r"'numpi' is no format.*'numpy'"):
        client.participate_in_round(round_id, train, format="numpi")
    assert client.participate_in_round(round_id, train, format="numpy")["status"] == "accepted"


def test_one_device_cannot_work_twice_at_once(platform):
    _, token = open_training(platform, "twice")
    client, again = device(token, "twice-device"), device(token, "twice-device")
    round_id = client.get_round_assignment()["round_id"]
    inside, leave = threading.Event(), threading.Event()

    def slow(state):
        inside.set()
        assert leave.wait(30)
        return plus_one(state)

    thread = threading.Thread(target=client.participate_in_round, args=(round_id, slow))
    thread.start()
    assert inside.wait(30)
    with pytest.raises(ConflictError, match="Device 'twice-device' is taking part already"):
        again.participate_in_round(round_id, plus_one)
    leave.set()
    thread.join(30)
    assert not thread.is_alive()


def test_an_update_that_was_stored_is_sent_and_not_made_again(platform):
    _, token = open_training(platform, "stored")
    client = device(token, "stored-device")
    found = client.get_round_assignment()
    base = {name: np.array(array) for name, array in start_state().items()}
    from truststram_lab.federated.participation import Parcel

    body = weights.encode(base, {"sample_count": "10", "metrics": "{}"})
    with Outbox(outbox_folder("sandbox", "default", "stored-device")) as outbox:
        outbox.put(Parcel(found["round_id"], found["run_id"], found["run"], "training", 1, body))

    def never(state):
        raise AssertionError("it trained")

    receipt = client.participate_in_round(found["round_id"], never)
    assert receipt["sha256"] == weights.sha256_hex(body)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "give one of them"),
        ({"client_id": "a", "auth_token_provider": lambda: "x"}, "give one of them"),
        ({"auth_token_provider": "tss_x"}, "pass a function"),
        ({"auth_token_provider": lambda: "x", "timeout": 0}, "timeout is 0"),
    ],
)
def test_a_client_is_made_in_one_way(arguments, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        FederatedClient(**arguments)


def test_each_way_names_the_other():
    with pytest.raises(InvalidInputError, match="get_round_assignment"):
        FederatedClient(auth_token_provider=lambda: "x").start()
    with pytest.raises(InvalidInputError, match="auth_token_provider"):
        FederatedClient("a").register()


def test_the_documents_host_stands_for_the_configured_platform(monkeypatch):
    monkeypatch.setenv("EDGEML_API_BASE", "https://api.edgeml.io/api/v1")
    documented = FederatedClient(
        auth_token_provider=lambda: "x", api_base="https://api.edgeml.io/api/v1"
    )
    assert documented._rounds.place == "sandbox"
    monkeypatch.setenv("TRUSTSTRAM_BASE_URL", "https://platform.example.org/api/v1")
    assert FederatedClient(auth_token_provider=lambda: "x")._rounds.place == "platform.example.org"
