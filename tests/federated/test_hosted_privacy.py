"""Differential privacy of virtual clients, and their own models: the laws, and real runs."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from truststram_lab import verbs
from truststram_lab.exceptions import InvalidInputError, PrivacyBudgetError, RunStoppedError
from truststram_lab.federated import FederatedRun
from truststram_lab.federated.hosted.client_memory import ClientMemory
from truststram_lab.federated.hosted.own_states import OwnStates
from truststram_lab.federated.hosted.rounds import ClientRounds, RoundMade, Rules
from truststram_lab.federated.record_privacy import site_plan
from truststram_lab.federated.run_spending import ledger_of
from truststram_lab.learning import weights
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.learning.privacy.mechanisms import clip_to, global_norm
from truststram_lab.learning.privacy.private_training import train_privately
from truststram_lab.learning.training import initial_state
from truststram_lab.learning.virtual import Client, Task, choose
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.personal import FedPer
from truststram_lab.schemas.privacy import ClientPlan, PrivacyPlan, RecordPlan
from truststram_lab.schemas.registry import Architecture, DenseLayer
from truststram_lab.schemas.simulation import Failures, Hosted
from truststram_lab.verbs import session as sessions

NETWORK = Architecture(
    inputs=4, layers=[DenseLayer(units=5, activation="relu"), DenseLayer(units=3)]
)
LOCAL = LocalTraining(epochs=2, batch_size=8, dtype="float64")


def _clients(count: int) -> list[Client]:
    rng = np.random.default_rng(3)
    return [
        Client(rng.normal(size=(6 + place, 4)), rng.integers(0, 3, 6 + place))
        for place in range(count)
    ]


def _round(
    clients: Sequence[Client],
    privacy: PrivacyPlan | None,
    backend: Any = "vectorized",
    **hosted: Any,
) -> tuple[weights.State, RoundMade]:
    plan = Hosted(clients=len(clients), **hosted)
    trainer = choose(Task.from_architecture(NETWORK, LOCAL), clients, backend, chunk=4)
    rules = Rules(plan, 11, LOCAL.epochs, LOCAL.learning_rate, (), privacy)
    sizes = np.array([len(client) for client in clients])
    base = initial_state(NETWORK, 0, "float64")
    memory = ClientMemory(plan, base, lambda _: OwnStates(len(clients)))
    rounds = ClientRounds(rules, sizes, lambda _: None)
    return base, rounds.perform(trainer, 1, base, memory, lambda: False)


def _record_plan(**given: Any) -> RecordPlan:
    # Every row in every step, and no noise: nothing is random, and the arithmetic shows.
    plan = {"clip": 0.3, "noise_multiplier": 0.0, "sample_rate": 1.0, "batch_size": 6.0,
            "steps_per_round": 3, "rounds": 1, "delta": 1e-3}  # fmt: skip
    return RecordPlan(**{**plan, **given})


@pytest.mark.parametrize("backend", ["loop", "vectorized"])
def test_private_rows_are_clipped_as_at_a_real_site(backend: str) -> None:
    clients, plan = _clients(6), _record_plan()
    base, made = _round(clients, plan, backend)
    expected = {name: np.zeros_like(array) for name, array in base.items()}
    total = sum(len(client) for client in clients)
    for client in clients:
        own, _ = train_privately(NETWORK, base, client.x, client.y, LOCAL,
                                 site_plan(plan, len(client)), "cpu", lambda: False)  # fmt: skip
        for name, array in weights.delta(base, own).items():
            expected[name] += len(client) / total * array
    for name, array in weights.delta(base, made.state).items():
        np.testing.assert_allclose(array, expected[name], atol=1e-12)
    assert global_norm(expected) > 1e-3


def test_clients_are_clipped_and_weigh_the_same() -> None:
    clients = _clients(6)
    plan = ClientPlan(clip=0.05, noise_multiplier=0.0, sites=6, rounds=1, delta=1e-3)
    base, made = _round(clients, plan)
    task = Task.from_architecture(NETWORK, LOCAL)
    from truststram_lab.learning.training import round_seed
    from truststram_lab.learning.virtual import Work

    trainer = choose(task, clients, "loop")
    works = [Work(place, round_seed(11, place, 1), epochs=LOCAL.epochs) for place in range(6)]
    clipped = [clip_to(one.delta, 0.05) for one in trainer.train(base, works)]
    for name, array in weights.delta(base, made.state).items():
        np.testing.assert_allclose(array, sum(one[name] for one in clipped) / 6, atol=1e-12)
    assert made.metrics == {}


def test_who_was_drawn_and_stayed_away_counts_as_zero_and_an_empty_round_has_noise() -> None:
    clients = _clients(4)
    plan = ClientPlan(clip=1e-9, noise_multiplier=1e9, cohort_rate=0.5, sites=4, rounds=1,
                      delta=1e-3)  # fmt: skip
    # Nobody comes: what is left is the noise, of deviation 1 over the expected cohort of 2.
    base, made = _round(clients, plan, failures=Failures(stragglers=1.0, drop=0.999999))
    drawn = np.concatenate([a.ravel() for a in weights.delta(base, made.state).values()])
    assert drawn.std() == pytest.approx(0.5, rel=0.5)
    _, again = _round(clients, plan, failures=Failures(stragglers=1.0, drop=0.999999))
    assert any(not np.array_equal(made.state[name], again.state[name]) for name in base)


def test_a_head_that_no_client_shares_gets_no_noise() -> None:
    plan = ClientPlan(clip=1.0, noise_multiplier=1.0, sites=4, rounds=1, delta=1e-3)
    base, made = _round(_clients(4), plan, personal=FedPer(head=["layers.1"]))
    assert np.array_equal(made.state["layers.1.weight"], base["layers.1.weight"])
    assert not np.array_equal(made.state["layers.0.weight"], base["layers.0.weight"])


# Real runs ------------------------------------------------------------------------------


def _oracle_epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    """Of dp-accounting, by RDP as a running round is accounted."""
    folder = Path(sys.prefix, "oracles")
    if folder.is_dir():
        sys.path.append(str(folder))
    try:
        dp = importlib.import_module("dp_accounting")
        rdp = importlib.import_module("dp_accounting.rdp")
    except ImportError as error:
        if "oracles" in os.environ.get("TS_REQUIRE", "").replace(",", " ").split():
            pytest.fail(f"TS_REQUIRE names oracles, but {error}.")
        pytest.skip(f"{error}; see test_privacy_oracles.")
    finally:
        if folder.is_dir():
            sys.path.remove(str(folder))
    found = rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.ADD_OR_REMOVE_ONE)
    event = dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise))
    found.compose(event, steps)
    return float(found.get_epsilon(delta))


def test_a_host_spends_what_the_small_federation_spends_for_the_same_plan(shared_session):
    options = {"rounds": 3, "clients": 4, "split": "iid", "dp": 2.0, "delta": 1e-4}
    apart = verbs.federate("breast-cancer", name="dp-apart", **options).snapshot()
    hosted = verbs.federate("breast-cancer", name="dp-hosted", drop=0.0, **options).snapshot()
    assert hosted.plan.privacy == apart.plan.privacy
    one, two = apart.report.privacy, hosted.report.privacy
    assert two.epsilon == one.epsilon == pytest.approx(2.0, rel=1e-3)
    assert two.statement.trust == "platform sees noised updates only"
    # The second run on the same data stands on what the first had spent.
    assert two.before == pytest.approx(one.epsilon)
    assert two.together > two.epsilon


@pytest.mark.filterwarnings("ignore")
def test_epsilon_of_a_secret_cohort_is_the_oracles(shared_session):
    run = verbs.federate("digits", name="cohort", clients=80, rounds=4, dp=1.5, dp_unit="client",
                         delta=1e-4, clip=0.5, fraction=0.3)  # fmt: skip
    found = run.snapshot()
    plan = found.plan.privacy
    assert (plan.sites, plan.cohort_rate, plan.unit) == (80, 0.3, "client")
    told = found.report.privacy
    assert told.epsilon == pytest.approx(account([plan.use(4)], 1e-4).epsilon)
    assert found.statement.trust == told.statement.trust == "host sees every update"
    assert "the platform one noised mean a round" in run.card().text.replace("\n  ", " ")
    client = sessions.require("testing").client
    rounds = [each for each in client.runs.rounds(run.name).items if each.kind == "training"]
    assert [(len(each.updates), each.noised_sha256) for each in rounds] == [(1, None)] * 4
    updates = [each for each in client.runs.updates(run.name).items if each.kind == "training"]
    # A count of the cohort, or a loss of its members, would say who was in it.
    assert all(each.metrics == {} for each in updates)
    assert {each.samples for each in updates} == {found.statistics.rows}
    # What was pushed is the mean with the planned noise: sigma = z C / (q N).
    sigma = plan.noise_multiplier * plan.clip / plan.denominator
    last, former = (weights.decode(client.blobs.get(digest))[0]
                    for digest in (rounds[3].result_sha256, rounds[3].model_sha256))  # fmt: skip
    moved = np.concatenate([(last[name] - former[name]).ravel() for name in last])
    assert moved.std() == pytest.approx(sigma, rel=0.15)
    assert verbs.runs(run.name, "replay").equal
    expected = _oracle_epsilon(plan.noise_multiplier, 0.3, 4, 1e-4)
    assert told.epsilon == pytest.approx(expected, rel=0.02)


def test_a_private_host_that_was_stopped_is_charged_for_each_round_once(shared_session):
    run = verbs.federate("breast-cancer", name="halved", clients=30, rounds=5, dp=2, seed=4,
                         background=True)  # fmt: skip
    while run.snapshot().round < 2:
        assert run.active
    run.stop()
    with pytest.raises(RunStoppedError):
        run.wait()
    run.resume().wait()
    found = run.snapshot()
    ledger = ledger_of(found.plan)
    mine = [entry for entry in ledger.entries() if entry.id.startswith(f"{found.id}/")]
    assert len([entry for entry in mine if entry.kind == "training"]) == 5
    assert all(entry.state == "released" for entry in mine)
    assert found.report.privacy.epsilon <= 2.0 * 1.001


def test_the_limit_of_the_data_refuses_a_hosted_run_before_it_trains(shared_session):
    before = len(verbs.runs())
    with pytest.raises(PrivacyBudgetError):
        verbs.federate("digits", clients=50, dp=3, dp_limit=0.5)
    assert len(verbs.runs()) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strategy": "scaffold", "dp": 3}, "scaffold do not go together"),
        ({"strategy": "fedprox:mu=0.1", "dp": 3}, "fedprox do not go together"),
        ({"strategy": "median", "dp": 3, "dp_unit": "client"}, "median do not go together"),
        ({"personal": "fedper:head=layers.1", "dp": 3}, "choose ditto, or --dp-unit client"),
        ({"personal": "fedper:head=layers.1", "strategy": "scaffold"}, "corrects whole models"),
        ({"personal": "fedper:head=nothing"}, "No layer is named 'nothing'"),
        ({"personal": "dito"}, "did you mean 'ditto'"),
        ({"filters": ["sparsification:top_k=0.1"], "dp": 3, "dp_unit": "client"}, "leave the fil"),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_trains(shared_session, options, words):
    with pytest.raises(InvalidInputError, match=words):
        verbs.federate("breast-cancer", name="refused", clients=30, **options)


# Own models -----------------------------------------------------------------------------


def _personal(run: FederatedRun) -> np.ndarray:
    return run.to_frame()["personal_accuracy"].to_numpy()


@pytest.mark.parametrize("personal", ["ditto:lambda=0.05", "fedper:head=layers.1"])
def test_own_models_are_scored_and_a_stop_leaves_them_as_they_would_have_been(
    shared_session, personal
):
    kind = personal.partition(":")[0]
    options = {"clients": 30, "rounds": 5, "split": "dirichlet:0.1", "personal": personal,
               "fraction": 0.6}  # fmt: skip
    whole = verbs.federate("breast-cancer", name=f"whole-{kind}", **options)
    halved = verbs.federate("breast-cancer", name=f"cut-{kind}", background=True, **options)
    while halved.snapshot().round < 2:
        assert halved.active
    halved.stop()
    sessions.require("testing").runs.clear()  # what a restart of the kernel does
    again = verbs.runs(halved.name, "resume")
    assert np.array_equal(_personal(whole), _personal(again))
    table = whole.to_frame()
    assert list(table.columns) == ["rows", "local_accuracy", "global_accuracy",
                                   "personal_accuracy", "loses"]  # fmt: skip
    assert list(table.index) == [f"client {i + 1}" for i in range(30)]
    report = whole.snapshot().report.clients
    assert report.lost == int(table["loses"].sum())
    assert report.personal.mean == pytest.approx(table["personal_accuracy"].mean())
    assert (table["personal_accuracy"] != table["global_accuracy"]).any()
    assert set(dict.fromkeys(name for name, *_ in report.losing)) <= set(table.index[table.loses])
    text = " ".join(whole.card().text.split())
    assert "own model, on its own mix" in text
    assert "With a model of its own beside the federation's" in text
    # Own models go with the run.
    folders = (shared_session / "outbox" / "simulations").glob("*")
    assert [p for folder in folders for p in folder.rglob("*") if p.is_file()] == []


def test_own_models_never_reach_the_platform_and_change_nothing_of_the_shared_one(shared_session):
    options = {"clients": 30, "rounds": 3, "drop": 0.0}
    plain = verbs.federate("breast-cancer", name="plain", **options)
    own = verbs.federate("breast-cancer", name="own", personal="ditto", **options)
    client = sessions.require("testing").client
    results = [client.runs.get(run.name).result_sha256 for run in (plain, own)]
    assert results[0] == results[1]
    sent = [[each.body_bytes for each in verbs.runs(run.name, "sent") if each.kind == "update"]
            for run in (plain, own)]  # fmt: skip
    assert sent[0] == sent[1]


def test_a_small_federation_has_a_table_too(shared_session):
    run = verbs.federate("breast-cancer", name="small", clients=3, rounds=1)
    table = run.to_frame()
    assert list(table.index) == ["site 1", "site 2", "site 3"]
    assert list(table["loses"]) == list(table["local_accuracy"] > table["global_accuracy"])
