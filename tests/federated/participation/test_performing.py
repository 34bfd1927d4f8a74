"""A round's local work: the terms of strategies, filters, residuals and the site's floor."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from scripted_platform import assignment

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.federated.participation import terms_of
from truststram_lab.federated.participation.functions import adapt
from truststram_lab.federated.participation.performing import SiteWork
from truststram_lab.federated.participation.policy import SitePolicy
from truststram_lab.learning import encodings, weights
from truststram_lab.learning.strategies import scaffold
from truststram_lab.schemas.federation import RoundPlan
from truststram_lab.schemas.privacy import LocalPlan, RecordPlan


def terms(number=1, rounds=3, **more):
    return terms_of(assignment(number, rounds), RoundPlan(**more))


def base():
    return {"w": np.array([1.0, -2.0, 3.0, 0.5], np.float32)}


def sgd(target=0.0, steps=5, rate=0.1):
    """Plain SGD on |w - target|^2 / 2."""

    def train(state):
        w = torch.nn.Parameter(state["w"])
        optimizer = torch.optim.SGD([w], lr=rate)
        for _ in range(steps):
            optimizer.zero_grad()
            (0.5 * ((w - target) ** 2).sum()).backward()
            optimizer.step()
        return {"w": w.detach()}, 10, {"loss": 0.0}

    return train


class States(list):
    def __call__(self, state):
        self.append(state)


def perform(work, wanted, model=None, own=None):
    states = States()
    body = weights.encode(base()) if model is None else model
    made = work.perform(wanted, body, states, (own or {}).get)
    return made, states


def test_the_update_is_what_training_changed_with_its_rows_and_metrics():
    made, states = perform(SiteWork(adapt(sgd())), terms())
    update, metadata = weights.decode(made.body)
    assert update["w"] == pytest.approx(base()["w"] * (0.9**5 - 1), rel=1e-5)
    assert metadata["sample_count"] == "10"
    assert json.loads(metadata["metrics"]) == {"loss": 0.0}
    assert states == ["local_training", "update_preparing"]
    assert made.state == {}


def test_fedprox_pulls_an_opaque_function_to_the_global_model():
    made, _ = perform(SiteWork(adapt(sgd())), terms(strategy="fedprox:mu=2"))
    w = base()["w"].astype(np.float64)
    for _ in range(5):
        w = w - 0.1 * (w + 2 * (w - base()["w"]))
    update, _ = weights.decode(made.body)
    assert update["w"] == pytest.approx(w - base()["w"], rel=1e-5)


def test_a_function_without_optimizer_steps_is_refused_where_a_term_is_due():
    work = SiteWork(adapt(lambda state: (state, 1, {})))
    with pytest.raises(InvalidInputError, match="took no step with a torch optimizer"):
        perform(work, terms(strategy="fedprox:mu=0.1"))
    made, _ = perform(work, terms())
    assert not weights.decode(made.body)[0]["w"].any()


def test_scaffold_sends_both_deltas_and_keeps_its_control_for_the_next_round():
    work = SiteWork(adapt(sgd(target=1.0)))
    wanted = terms(strategy="scaffold")
    made, _ = perform(work, wanted)
    update, _ = weights.decode(made.body)
    kept = weights.decode(made.state["run_1.control"])[0]
    assert set(update) == {"w", "c/w"}
    assert np.array_equal(update["c/w"], kept["c/w"])
    # Option II: the mean gradient on the way.
    assert kept["c/w"] == pytest.approx(-update["w"] / 0.5, rel=1e-5)
    server = {"c/w": np.full(4, 0.25, np.float32)}
    model = weights.encode({**base(), **server})
    again, _ = perform(work, terms(2, strategy="scaffold"), model, made.state)
    w, correction = base()["w"].astype(np.float64), scaffold.correction(server, kept)["w"]
    for _ in range(5):
        w = w - 0.1 * (w - 1.0 + correction)
    assert weights.decode(again.body)[0]["w"] == pytest.approx(w - base()["w"], rel=1e-4)
    last, _ = perform(work, terms(3, strategy="scaffold"), model, again.state)
    assert last.state == {"run_1.control": None}


FILTERS = [{"type": "gradient_clip", "max_norm": 1.0}, {"type": "sparsification", "top_k": 0.25}]


def test_what_was_held_back_is_sent_later_and_nothing_is_lost():
    work = SiteWork(adapt(sgd()))
    first, states = perform(work, terms(filters=FILTERS))
    assert states == ["local_training", "update_preparing", "clipping"]
    sent, metadata = encodings.decode(first.body, base())
    residual, _ = weights.decode(first.state["run_1.residual"])
    assert np.count_nonzero(sent["w"]) == 1
    assert np.linalg.norm(sent["w"] + residual["w"]) == pytest.approx(1.0, rel=1e-6)
    assert [step["filter"]["type"] for step in json.loads(metadata["filters"])] == [
        "gradient_clip",
        "sparsification",
    ]
    second, _ = perform(work, terms(2, filters=FILTERS), own=first.state)
    sent_again, _ = encodings.decode(second.body, base())
    left, _ = weights.decode(second.state["run_1.residual"])
    whole = 2 * (sent["w"] + residual["w"])
    assert sent["w"] + sent_again["w"] + left["w"] == pytest.approx(whole, rel=1e-5)
    last, _ = perform(work, terms(3, filters=FILTERS), own=second.state)
    assert last.state == {"run_1.residual": None}


def test_local_privacy_and_the_sites_own_filters_come_before_the_federations():
    policy = SitePolicy(own_filters=[{"type": "gradient_clip", "max_norm": 0.5}])
    privacy = LocalPlan(clip=0.25, sigma=0.1, rounds=3, delta=1e-5)
    quantised = [{"type": "quantization", "bits": 8}]
    made, states = perform(
        SiteWork(adapt(sgd()), policy=policy), terms(privacy=privacy, filters=quantised)
    )
    _, metadata = encodings.decode(made.body, base())
    steps = json.loads(metadata["filters"])
    assert [step["filter"]["type"] for step in steps] == [
        "gradient_clip",
        "gradient_clip",
        "gaussian_noise",
        "quantization",
    ]
    assert steps[1]["norm_after"] == pytest.approx(0.25, rel=1e-6)
    assert states[-2:] == ["clipping", "noising"]


def test_an_evaluation_sends_numbers_and_no_arrays():
    from truststram_lab.federated.participation.functions import Evaluated

    work = SiteWork(adapt(sgd()), evaluate=lambda state, terms: Evaluated(7, {"loss": 0.5}))
    wanted = terms_of(assignment(1).model_copy(update={"kind": "evaluation"}))
    made, states = perform(work, wanted)
    found, metadata = weights.decode(made.body)
    assert (found, states) == ({}, ["local_eval"])
    assert json.loads(metadata["metrics"]) == {"loss": 0.5, "rows": 7.0}


def test_what_a_site_cannot_do_is_said_before_it_trains():
    work = SiteWork(adapt(sgd()))
    for kind, sentence in (
        ("statistics", "no column statistics"),
        ("evaluation", "no evaluation function"),
        ("initial", "no parameters to begin with"),
    ):
        wanted = terms_of(assignment(1).model_copy(update={"kind": kind}))
        [found] = work.objections(wanted)
        assert sentence in found
    plan = RecordPlan(
        noise_multiplier=1.0, sample_rate=0.1, batch_size=8, steps_per_round=1, rounds=3, delta=1e-5
    )
    [found] = work.objections(terms(privacy=plan))
    assert "record-level privacy" in found
    assert work.objections(terms()) == []


@pytest.mark.parametrize(
    ("policy", "plan", "sentence"),
    [
        (
            {"models": ("icu",)},
            {"model": "fraud"},
            "trains icu only, and the run is of model 'fraud'",
        ),
        ({"strategies": ("FedAvg",)}, {"strategy": "median"}, "allows fedavg only.*median"),
        ({"max_rounds": 2}, {}, "at most 2 rounds of a run, and this one has 3"),
        ({"max_clip": 1.0}, {}, "nothing clips"),
        ({"max_clip": 0.5}, {"filters": FILTERS}, "the norm is 1"),
        ({"min_noise": 0.5}, {}, "adds 0"),
        (
            {"min_noise": 0.5},
            {"filters": [{"type": "gaussian_noise", "sigma": 0.3}] * 2},
            "adds 0.424",
        ),
        ({"max_epsilon": 1.0}, {}, "no privacy that the site itself enforces"),
        (
            {"max_epsilon": 1.0},
            {"privacy": LocalPlan(clip=1.0, sigma=0.01, rounds=3, delta=1e-5)},
            "would spend",
        ),
    ],
)
def test_a_round_below_the_sites_floor_is_declined_with_one_sentence(policy, plan, sentence):
    [found] = SitePolicy(**policy).objections(terms(**plan))
    assert re.search(sentence, found)
    assert found.endswith(".")


def test_a_round_that_keeps_the_floor_is_accepted():
    policy = SitePolicy(
        max_clip=1.0,
        min_noise=0.5,
        max_epsilon=50.0,
        models=("icu",),
        strategies=("fedavg", "fedprox"),
        max_rounds=3,
    )
    privacy = LocalPlan(clip=1.0, sigma=2.0, rounds=3, delta=1e-5)
    assert policy.objections(terms(model="icu", privacy=privacy)) == []
    clipping_here = SitePolicy(
        max_clip=1.0, own_filters=[{"type": "gradient_clip", "max_norm": 1.0}]
    )
    assert clipping_here.objections(terms()) == []


def test_statistics_leave_only_where_they_are_allowed():
    wanted = terms_of(assignment(1).model_copy(update={"kind": "statistics"}))
    work = SiteWork(
        adapt(sgd()), columns={"dose": np.arange(9.0)}, policy=SitePolicy(allow_statistics=False)
    )
    [found] = work.objections(wanted)
    assert "no counts, means or variances" in found


def test_a_typo_does_not_lower_the_floor():
    with pytest.raises(InvalidInputError, match="no 'max_epsilom'; did you mean 'max_epsilon'"):
        SitePolicy.parse({"max_epsilom": 1.0})
    with pytest.raises(InvalidInputError, match="max_clip is -1"):
        SitePolicy.parse({"max_clip": -1})
    with pytest.raises(InvalidInputError, match="median"):
        SitePolicy.parse({"strategies": ["medain"]})
    assert SitePolicy.parse({"models": ["a"], "max_clip": 1}).models == ("a",)


def test_the_configuration_always_has_the_documented_keys():
    found = terms(strategy="fedprox:mu=0.5", config={"flavour": "x", "epochs": 9}).config
    assert {"epochs", "batch_size", "learning_rate", "round", "proximal_mu"} <= set(found)
    assert (found["proximal_mu"], found["flavour"], found["epochs"]) == (0.5, "x", 9)
