"""The participant's side of a federation, through a whole run on a real platform."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from tiny_models import SIGNATURE, plan, weights_file

from truststram_lab.client import ParticipantClient
from truststram_lab.exceptions import (
    AuthenticationError,
    ConflictError,
    PermissionDeniedError,
    PlatformUnavailableError,
    RoundClosedError,
    UpdateRejectedError,
)
from truststram_lab.learning import weights
from truststram_lab.learning.statistics import local_moments


def join(client, model, sites):
    client.federations.create(model)
    invitations = client.federations.invite(model, sites)
    run = client.runs.create(plan(client, model, sites))
    return run, {one.participant: client.participant(one.token) for one in invitations}


def moments(values):
    state = local_moments({"dose": np.asarray(values, float)}, SIGNATURE)
    return weights.encode(state, {"sample_count": str(len(values)), "metrics": "{}"})


def delta(step, rows=10):
    return weights_file(step, step, {"sample_count": str(rows), "metrics": "{}"})


def test_a_run_from_registration_to_the_served_model(client):
    run, sites = join(client, "whole", ["a", "b"])
    for name, site in sites.items():
        assert site.register(f"whole/{name}").device_identifier == f"whole/{name}"
        [assignment] = site.assignments()
        assert (assignment.run, assignment.kind) == (run.name, "statistics")
        receipt = site.push(assignment.round_id, moments(range(10)))
        assert (receipt.status, receipt.duplicate) == ("accepted", False)
    for site in sites.values():
        [assignment] = site.assignments(wait_s=20)
        assert (assignment.kind, assignment.number) == ("training", 1)
        base, _ = weights.decode(site.model(assignment.round_id))
        assert base["layers.0.weight"] == pytest.approx(1.0)
        body = delta(0.5)
        assert not site.push(assignment.round_id, body).duplicate
        assert site.push(assignment.round_id, body).duplicate
    kinds = [event.type for event in client.events.stream(f"run:{run.id}")]
    assert kinds[0] == "run.created"
    assert kinds[-1] == "run.completed"
    done = client.runs.get(run.name)
    assert (done.status, done.round) == ("completed", 1)
    trained, _ = weights.decode(client.models.download("whole", done.model_version))
    assert trained["layers.0.weight"] == pytest.approx(1.5)
    assert client.inference.predict("whole", {"dose": 9.0}).label == "yes"
    for site in sites.values():
        assert site.traffic.sent_bytes > len(delta(0.5)) * 2
        assert site.traffic.received_bytes > len(weights_file(1.0))
        site.close()


def test_refusals_are_the_matching_errors(client):
    run, sites = join(client, "refusals", ["a", "b"])
    site = sites["a"]
    [assignment] = site.assignments()
    with pytest.raises(UpdateRejectedError):
        site.push(assignment.round_id, b"not a file")
    with pytest.raises(UpdateRejectedError):
        site.push(assignment.round_id, delta(0.5))
    site.push(assignment.round_id, moments(range(10)))
    with pytest.raises(ConflictError):
        site.push(assignment.round_id, moments(range(11)))
    client.runs.stop(run.name)
    with pytest.raises(RoundClosedError):
        sites["b"].push(assignment.round_id, moments(range(10)))
    assert sites["b"].assignments() == []
    client.runs.resume(run.name)
    assert [one.round_id for one in sites["b"].assignments()] == [assignment.round_id]
    with pytest.raises(ConflictError):
        client.runs.resume(run.name)
    for one in sites.values():
        one.close()


def test_a_site_may_not_act_as_the_owner_and_an_old_invitation_is_void(client):
    _, sites = join(client, "roles", ["a"])
    former = sites["a"]
    with ParticipantClient(client.target, former._http.targets.current().token) as same:
        assert same.assignments()
    assert former._http.targets.current().token != client.target().token
    client.federations.invite("roles", ["a"])
    with pytest.raises((AuthenticationError, PermissionDeniedError)):
        former.assignments()
    former.close()


def test_closing_ends_a_long_poll_in_another_thread(client):
    _, sites = join(client, "polling", ["a"])
    site = sites["a"]
    [assignment] = site.assignments()
    client.runs.stop(assignment.run)
    before = site.traffic.sent_bytes
    ended: list[BaseException] = []

    def poll() -> None:
        try:
            site.assignments(wait_s=30)
        except PlatformUnavailableError as error:
            ended.append(error)

    thread = threading.Thread(target=poll)
    thread.start()
    while site.traffic.sent_bytes == before:
        thread.join(0.01)
    site.close()
    thread.join(10)
    assert not thread.is_alive()
    assert len(ended) == 1
