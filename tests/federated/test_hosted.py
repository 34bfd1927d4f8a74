"""Simulations with one host: many virtual clients, one update a round, on a real platform."""

from __future__ import annotations

import time

import numpy as np
import pytest

from truststram_lab import verbs
from truststram_lab.exceptions import InvalidInputError, RunStoppedError
from truststram_lab.federated import FederatedRun
from truststram_lab.federated.hosted.failures import hostile_clients, turns_of
from truststram_lab.learning import weights
from truststram_lab.schemas.simulation import Failures, Hosted, parse_hostile
from truststram_lab.verbs import session as sessions


def _weights_of(run: FederatedRun) -> dict[str, np.ndarray]:
    client = sessions.require("testing").client
    version = client.models.version(run.model, run.snapshot().model_version)
    return weights.decode(client.blobs.get(version.weights_sha256))[0]


def test_the_platform_sees_one_host_that_pushes_once_a_round(shared_session):
    run = verbs.federate("breast-cancer", name="many", clients=60, rounds=4, split="dirichlet:0.3")
    found = run.snapshot()
    client = sessions.require("testing").client
    assert found.plan.sites == ["simulation host"]
    assert found.plan.hosted is not None
    assert found.plan.hosted.clients == 60
    rounds = client.runs.rounds(run.name).items
    assert [len(each.updates) for each in rounds if each.kind == "training"] == [1] * 4
    assert found.statistics is not None
    assert found.statistics.rows == sum(site.rows for site in found.report.sites)
    text = " ".join(run.card().text.split())
    assert "60 simulated clients" in text
    assert "would do better alone" in text
    assert len(run.card().html.encode()) < 50_000
    replayed = verbs.runs(run.name, "replay")
    assert replayed.equal


def test_a_host_and_participants_train_the_same_model(shared_session):
    options = {"rounds": 3, "clients": 4, "split": "iid"}
    apart = verbs.federate("breast-cancer", name="apart", **options)
    # A chance of nothing asks for the host and changes no client's work.
    hosted = verbs.federate("breast-cancer", name="hosted", drop=0.0, **options)
    for name, array in _weights_of(apart).items():
        np.testing.assert_allclose(_weights_of(hosted)[name], array, atol=2e-4)


@pytest.mark.parametrize("strategy", ["scaffold", "fedadam:server_learning_rate=0.03"])
def test_a_hosted_run_that_was_stopped_goes_on_to_the_same_bits(shared_session, strategy):
    options = {"clients": 40, "rounds": 6, "strategy": strategy, "stragglers": 0.3, "drop": 0.1}
    name = strategy.partition(":")[0]
    whole = verbs.federate("breast-cancer", name=f"whole-{name}", **options)
    halved = verbs.federate("breast-cancer", name=f"halved-{name}", background=True, **options)
    deadline = time.monotonic() + 60
    while halved.snapshot().round < 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    halved.stop()
    assert halved.status == "stopped"
    with pytest.raises(RunStoppedError):
        halved.wait()
    halved.resume().wait()
    one, two = _weights_of(whole), _weights_of(halved)
    assert all(np.array_equal(one[key], two[key]) for key in one)


def test_hostile_clients_break_the_mean_and_not_the_median(shared_session):
    options = {"clients": 30, "rounds": 8, "split": "iid", "hostile": "0.3:sign_flip=5"}
    found = {
        strategy: verbs.federate("breast-cancer", name=f"attacked-{strategy}", strategy=strategy,
                                 **options).snapshot().report.federated.accuracy
        for strategy in ("fedavg", "median")
    }  # fmt: skip
    assert found["median"] > 0.85
    assert found["fedavg"] < found["median"] - 0.15


def test_failures_are_drawn_by_the_seed_and_in_their_shares():
    hosted = Hosted(
        clients=1_000,
        fraction=0.5,
        failures=Failures(drop=0.2, stragglers=0.3, hostile=parse_hostile("0.1:scale=10")),
    )
    turns = [turns_of(hosted, 7, number, 5) for number in range(1, 11)]
    assert turns[0] == turns_of(hosted, 7, 1, 5) != turns_of(hosted, 8, 1, 5)
    arrived = np.mean([len(turn) for turn in turns])
    assert arrived == pytest.approx(400, abs=15)
    late = np.mean([one.epochs < 5 for turn in turns for one in turn])
    assert late == pytest.approx(0.3, abs=0.03)
    assert {one.epochs for turn in turns for one in turn} == {1, 2, 3, 4, 5}
    assert len(hostile_clients(hosted, 7)) == 100
    assert hostile_clients(hosted, 7) != hostile_clients(hosted, 8)


def test_a_straggler_of_one_epoch_is_too_late():
    hosted = Hosted(clients=100, failures=Failures(stragglers=1.0))
    assert turns_of(hosted, 0, 1, 1) == []


@pytest.mark.parametrize("name", ["fraction", "drop", "stragglers"])
def test_a_share_out_of_range_is_refused(shared_session, name):
    with pytest.raises(InvalidInputError, match=f"--{name} 1.5"):
        verbs.federate("breast-cancer", **{name: 1.5})
