"""A site's own model beside the federation's: really trained, kept here, and never sent."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.federated.joined_work import JoinedWork
from truststram_lab.federated.participation.terms import Terms
from truststram_lab.federated.site_personal import PERSONAL, read_personal
from truststram_lab.federated.site_table import read_site_table
from truststram_lab.learning import weights
from truststram_lab.learning.statistics import local_moments, merge_moments
from truststram_lab.learning.training import initial_state
from truststram_lab.preprocessing import encoded_width
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.personal import Ditto, FedPer, parse_personal
from truststram_lab.schemas.registry import Architecture, DenseLayer
from truststram_lab.schemas.strategies import FedAvg, as_strategy

LOCAL = LocalTraining(epochs=2, batch_size=8, learning_rate=0.1)


def frame(rows: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    ill = rng.random(rows) < 0.5
    dose = rng.normal(0, 1, rows) - 3 * ill
    return pd.DataFrame({"dose": dose, "ill": np.where(ill, "yes", "no")})


TABLE = read_site_table(frame(), "ill")
WIDTH = encoded_width(TABLE.signature)
NETWORK = Architecture(
    inputs=WIDTH, layers=[DenseLayer(units=4, activation="tanh"), DenseLayer(units=1)]
)


def terms(number: int = 1, kind: str = "training", strategy=None, run: str = "run_1") -> Terms:
    moments = local_moments(TABLE.features, TABLE.signature)
    return Terms(
        round_id=f"{run}_{number}",
        run_id=run,
        run="icu-1",
        kind=kind,
        number=number,
        rounds=3,
        seed=0,
        min_site_rows=5,
        local=LOCAL,
        config={"epochs": 2, "batch_size": 8, "learning_rate": 0.1, "round": number},
        strategy=strategy or FedAvg(),
        filters=(),
        privacy=None,
        signature=TABLE.signature,
        architecture=NETWORK,
        statistics=merge_moments([moments], TABLE.signature),
        model=None,
    )


def perform(work: JoinedWork, wanted: Terms, shared=None, kept=None):
    body = weights.encode(shared or initial_state(NETWORK, 3))
    return work.perform(wanted, body, lambda _: None, (kept or {}).get)


def personal_of(made) -> weights.State:
    found = read_personal(made.state[PERSONAL])
    assert found is not None
    return found


def distance(a, b) -> float:
    return float(sum(np.square(a[name] - b[name]).sum() for name in a)) ** 0.5


def own_training(state, x, y):
    """The house's network, by somebody's own torch loop."""
    model = torch.nn.Sequential(torch.nn.Linear(WIDTH, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    names = [*state]
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, targets = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    for _ in range(10):
        optimizer.zero_grad()
        logits = model(inputs)[:, 0]
        torch.nn.functional.binary_cross_entropy_with_logits(logits, targets).backward()
        optimizer.step()
    return dict(zip(names, model.state_dict().values(), strict=True)), len(y), {}


FUNCTIONS = pytest.mark.parametrize("function", [None, own_training], ids=["house", "function"])


@FUNCTIONS
@pytest.mark.parametrize("strategy", ["fedavg", "fedprox:mu=1", "scaffold"])
def test_a_ditto_site_sends_the_very_bytes_that_it_sends_without_one(function, strategy):
    wanted = terms(strategy=as_strategy(strategy))
    plain = perform(JoinedWork(TABLE, function), wanted)
    ditto = perform(JoinedWork(TABLE, function, personal=Ditto()), wanted)
    assert ditto.body == plain.body
    assert set(ditto.state) - set(plain.state) == {PERSONAL}


@FUNCTIONS
def test_the_personal_model_is_trained_and_the_larger_lambda_the_nearer_it_stays(function):
    shared = initial_state(NETWORK, 3)
    away = [
        distance(personal_of(perform(JoinedWork(TABLE, function, personal=kind), terms())), shared)
        for kind in (Ditto(strength=0), Ditto(strength=1), Ditto(strength=5))
    ]
    assert away == sorted(away, reverse=True)
    assert away[-1] > 0


def test_ditto_takes_the_papers_step():
    # One step of the whole table: v - rate (grad F(v) + lambda (v - w)), algorithm 1.
    one = LocalTraining(epochs=1, batch_size=len(TABLE.trained), learning_rate=0.1)
    shared, mine = initial_state(NETWORK, 3), initial_state(NETWORK, 4)

    def step(strength: float) -> weights.State:
        wanted = terms()
        wanted = Terms(**{**vars(wanted), "local": one})
        kept = {PERSONAL: weights.encode(mine, {"run_id": "run_1"})}
        work = JoinedWork(TABLE, personal=Ditto(strength=strength))
        return personal_of(perform(work, wanted, shared, kept))

    alone, pulled = step(0.0), step(2.0)
    for name, array in mine.items():
        expected = alone[name] - 0.1 * 2.0 * (array - shared[name])
        np.testing.assert_allclose(pulled[name], expected, rtol=1e-4, atol=1e-6)


def test_the_personal_model_goes_on_from_round_to_round_and_begins_anew_with_a_run():
    work = JoinedWork(TABLE, personal=Ditto(strength=0))
    first = perform(work, terms(1))
    second = perform(work, terms(2), kept=first.state)
    shared = initial_state(NETWORK, 3)
    assert distance(personal_of(second), shared) > distance(personal_of(first), shared)
    last = perform(work, terms(3), kept=second.state)
    assert personal_of(last), "the run's last round keeps it, too"
    other = perform(work, terms(1, run="run_2"), kept=last.state)
    again = perform(work, terms(1, run="run_2"))
    assert other.state[PERSONAL] == again.state[PERSONAL]


def test_both_models_are_scored_on_the_rows_held_out_and_only_the_global_score_leaves():
    told = []
    work = JoinedWork(TABLE, personal=Ditto(strength=0), on_score=told.append)
    plain = JoinedWork(TABLE)
    kept = None
    for number in (1, 2, 3):
        kept = perform(work, terms(number), kept=kept).state
    scored = perform(work, terms(3, "evaluation"), kept=kept)
    assert scored.body == perform(plain, terms(3, "evaluation")).body
    (entry,) = told
    assert entry.personal.rows == entry.score.rows == len(TABLE.held_out)
    assert entry.personal.accuracy > 0.8 > entry.score.accuracy
    assert entry.personal_loss < entry.loss


@FUNCTIONS
@pytest.mark.parametrize("strategy", ["fedavg", "fedprox:mu=1"])
def test_fedper_shares_the_body_and_its_update_of_the_head_is_zero(function, strategy):
    work = JoinedWork(TABLE, function, personal=FedPer(head=["layers.1"]))
    assert work.objections(terms()) == []
    first = perform(work, terms(1, strategy=as_strategy(strategy)))
    update, _ = weights.decode(first.body)
    head = personal_of(first)
    assert set(head) == {"layers.1.weight", "layers.1.bias"}
    assert not any(update[name].any() for name in head)
    assert update["layers.0.weight"].any()
    second = perform(work, terms(2, strategy=as_strategy(strategy)), kept=first.state)
    assert distance(personal_of(second), head) > 0
    update, _ = weights.decode(second.body)
    assert not any(update[name].any() for name in head)


def test_a_head_that_is_no_layer_is_declined_before_training_with_the_layers():
    (said,) = JoinedWork(TABLE, personal=FedPer(head=["layer.1"])).objections(terms())
    assert "did you mean 'layers.1'" in said
    assert "layers.0, layers.1" in said
    work = JoinedWork(TABLE, personal=FedPer(head=["layers.1"]))
    (said,) = work.objections(terms(strategy=as_strategy("scaffold")))
    assert "--personal ditto" in said


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ditto", Ditto(strength=0.1)),
        ("Ditto:lambda=0", Ditto(strength=0)),
        ("ditto:lambda=2.5", Ditto(strength=2.5)),
        ("fedper:head=layers.1", FedPer(head=["layers.1"])),
        ("fedper:head=fc,out", FedPer(head=["fc", "out"])),
    ],
)
def test_a_personal_model_is_spelt_as_a_strategy_is(text, found):
    assert parse_personal(text) == found
    assert parse_personal(str(found)) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ditto:lambda=-0.1", "lambda=-0.1 .* 0 or more"),
        ("ditto:lambda=nan", "0 or more"),
        ("ditto:lambda=much", "0 or more"),
        ("ditto:lamda=0.1", "not lambda=VALUE"),
        ("dito", "did you mean 'ditto'"),
        ("fedper", "fedper:head="),
        ("own", "it is ditto or fedper"),
    ],
)
def test_a_personal_model_that_is_none_is_one_sentence(text, says):
    with pytest.raises(InvalidInputError, match=says):
        parse_personal(text)
