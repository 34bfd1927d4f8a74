from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.learning.privacy.mechanisms import global_norm, noised_mean
from truststram_lab.learning.privacy.noise import SecureRandom
from truststram_lab.learning.privacy.planner import expected_noise, plan
from truststram_lab.learning.privacy.simulation import expected_accuracy
from truststram_lab.learning.privacy.statements import epsilon_text, no_guarantee, statement
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.privacy import (
    ClientPlan,
    GaussianUse,
    LocalPlan,
    PrivacyPlan,
    PrivacyStatement,
    RecordPlan,
)
from truststram_lab.schemas.registry import Architecture, DenseLayer

DELTA = 1e-5


@given(st.floats(0.05, 50), st.integers(1, 200), st.integers(1, 1000), st.sampled_from([1.0, 0.1]))
@settings(max_examples=30)
def test_a_client_plan_meets_its_budget_from_below(
    epsilon: float, rounds: int, sites: int, rate: float
) -> None:
    found = plan(epsilon, 1e-6, rounds, sites, cohort_rate=rate)
    spent = account([found.plan.use(rounds)], 1e-6).epsilon
    assert epsilon * (1 - 1e-3) <= spent <= epsilon
    assert found.statement.epsilon == spent
    assert found.plan.unit == "client"


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 3.0, 30.0, 3000.0])
def test_a_record_plan_meets_its_budget_from_below(epsilon: float) -> None:
    found = plan(epsilon, DELTA, 10, 5, rows=400)
    assert isinstance(found.plan, RecordPlan)
    assert (found.plan.sample_rate, found.plan.steps_per_round) == (0.04, 50)
    assert found.plan.batch_size == 16
    spent = account([found.plan.use(10)], DELTA).epsilon
    assert epsilon * (1 - 1e-3) <= spent <= epsilon


def test_more_rounds_need_more_noise_and_a_smaller_cohort_less() -> None:
    def noise(**changes: float) -> float:
        found = plan(3, DELTA, **{"rounds": 10, "sites": 50, **changes}).plan
        assert isinstance(found, ClientPlan)
        return found.noise_multiplier

    assert noise(rounds=20) > noise() > noise(cohort_rate=0.1)


def test_the_expected_noise_is_the_norm_that_noise_has() -> None:
    found = plan(3, DELTA, 10, 8, parameters=40_000)
    assert isinstance(found.plan, ClientPlan)
    like = {"w": np.zeros((200, 200))}
    measured = global_norm(noised_mean([], like, found.plan, rng=SecureRandom(bytes(32))))
    assert measured == pytest.approx(found.noise.step_noise, rel=0.02)
    assert found.noise.noise_to_signal == pytest.approx(
        found.noise.step_noise / found.plan.clip / math.sqrt(10)
    )


def test_noise_to_signal_falls_with_sites_rows_and_epsilon_and_rises_with_the_model() -> None:
    base = plan(3, DELTA, 10, 8, rows=400).noise.noise_to_signal
    assert plan(3, DELTA, 10, 32, rows=400).noise.noise_to_signal == pytest.approx(base / 2)
    assert plan(3, DELTA, 10, 8, rows=4000).noise.noise_to_signal < base
    assert plan(9, DELTA, 10, 8, rows=400).noise.noise_to_signal < base
    assert plan(3, DELTA, 10, 8, rows=400, parameters=4000).noise.noise_to_signal == pytest.approx(
        2 * base
    )
    local = LocalPlan(sigma=2, rounds=4, delta=DELTA)
    found = expected_noise(local, sites=4, parameters=100)
    assert (found.step_noise, found.noise_to_signal) == (10.0, 5.0)
    assert "hardly learn" in found.text


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"epsilon": 0}, "Epsilon 0 is no budget"),
        ({"epsilon": float("inf")}, "Epsilon inf is no budget"),
        ({"delta": 0}, "no chance between 0 and 1"),
        ({"delta": 0.2}, "allows one of 5 to be shown"),
        ({"rounds": 0}, "rounds is 0"),
        ({"sites": 0}, "sites is 0"),
        ({"cohort_rate": 1.5}, "no chance to be drawn"),
        ({"unit": "record"}, "give rows="),
        ({"rows": 8}, "use a batch size of 8 or less"),
    ],
)
def test_a_plan_that_cannot_be_says_why(wrong: dict[str, float], sentence: str) -> None:
    common: dict[str, float] = {"epsilon": 3, "delta": DELTA, "rounds": 10, "sites": 5}
    with pytest.raises(InvalidInputError, match=sentence):
        plan(**{**common, **wrong})


PLANS: list[PrivacyPlan] = [
    RecordPlan(
        noise_multiplier=1.1,
        sample_rate=0.04,
        batch_size=16,
        steps_per_round=50,
        rounds=10,
        delta=DELTA,
    ),
    ClientPlan(noise_multiplier=4, cohort_rate=0.2, sites=50, rounds=10, delta=DELTA),
    LocalPlan(sigma=0.01, rounds=1, delta=DELTA),
]


@pytest.mark.parametrize("made", PLANS)
def test_a_plan_survives_the_wire(made: PrivacyPlan) -> None:
    adapter: TypeAdapter[PrivacyPlan] = TypeAdapter(PrivacyPlan)
    assert adapter.validate_json(adapter.dump_json(made)) == made
    said = statement(made)
    assert PrivacyStatement.model_validate_json(said.model_dump_json()) == said


def test_a_statement_names_everything_it_depends_on() -> None:
    record, client, local = (statement(made) for made in PLANS)
    assert record.text.startswith("Record-level differential privacy with epsilon")
    assert "one row more or less at a site" in record.text
    assert "noise multiplier 1.1" in record.text
    assert "chance 0.04, in secret" in record.text
    assert "accounted by PRV; the platform saw noised updates only." in record.text
    assert "one site more or less" in client.text
    assert client.text.endswith("the platform saw every update.")
    assert "exchanged for any other" in local.text
    # Sensitivity 2: mu = 200, and the number is shown for what it is.
    assert local.epsilon == pytest.approx(20852.0, abs=0.1)
    assert "epsilon 20,900 at delta 1e-05 after 1 round:" in local.text
    assert local.text.endswith("an epsilon this large protects nobody.")
    assert all("outside this number" in said.outside for said in (record, client, local))


def test_a_run_that_went_on_spent_more_than_one_that_just_began() -> None:
    spent = [statement(PLANS[0], rounds, tight=False).epsilon or 0.0 for rounds in range(4)]
    assert spent[0] == 0
    assert spent == sorted(set(spent))


def test_without_noise_there_is_no_epsilon_and_the_text_says_so() -> None:
    bare = PLANS[1].model_copy(update={"noise_multiplier": 0.0})
    said = statement(bare)
    assert (said.epsilon, said.accountant) == (None, None)
    assert said.text.startswith("No differential privacy: no noise was added, so epsilon is inf")
    assert '"epsilon":null' in said.model_dump_json()
    assert "noise without clipping" in no_guarantee(PLANS[2], "noise without clipping").text


def test_an_epsilon_needs_its_accountant() -> None:
    said = statement(PLANS[2]).model_dump()
    with pytest.raises(ValidationError, match="needs the accountant"):
        PrivacyStatement.model_validate({**said, "accountant": None})


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [(0.0, "0"), (0.01234, "0.0124"), (2.671, "2.68"), (3.0, "3"), (99.91, "100"),
     (5425.5, "5,430"), (None, "infinite"), (math.inf, "infinite")],
)  # fmt: skip
def test_epsilons_are_rounded_up(epsilon: float | None, text: str) -> None:
    assert epsilon_text(epsilon) == text


def test_uses_follow_the_mechanism() -> None:
    assert [made.use(2) for made in PLANS] == [
        GaussianUse(noise_multiplier=1.1, sample_rate=0.04, steps=100),
        GaussianUse(noise_multiplier=4, sample_rate=0.2, steps=2),
        # Two updates within the clip are up to two clips apart.
        GaussianUse(noise_multiplier=0.005, sample_rate=1, steps=2),
    ]


NETWORK = Architecture(inputs=4, layers=[DenseLayer(units=1)])
LOCAL = LocalTraining(epochs=1, batch_size=8, learning_rate=0.5)


def tables(sites: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    out = []
    for _ in range(sites):
        x = rng.normal(size=(60, 4))
        out.append((x, (x @ np.array([2.0, -1.0, 1.0, 0.5]) > 0).astype(np.int64)))
    return out


@pytest.mark.parametrize(
    ("gentle", "violent"),
    [
        (
            plan(50, DELTA, 4, 6, rows=60, batch_size=10, epochs=1).plan,
            plan(0.02, DELTA, 4, 6, rows=60, batch_size=10, epochs=1).plan,
        ),
        (plan(200, DELTA, 4, 6).plan, plan(0.02, DELTA, 4, 6).plan),
        (
            LocalPlan(sigma=0.01, rounds=4, delta=DELTA),
            LocalPlan(sigma=100, rounds=4, delta=DELTA),
        ),
    ],
    ids=["record", "client", "local"],
)
def test_the_simulated_accuracy_falls_with_the_noise(
    gentle: PrivacyPlan, violent: PrivacyPlan
) -> None:
    *sites, held_out = tables(7)
    good, bad = (
        expected_accuracy(made, NETWORK, sites, held_out, local=LOCAL, repeats=2)
        for made in (gentle, violent)
    )
    assert good.mean > 0.85
    assert good.without_noise > 0.85
    assert bad.mean < 0.75
    assert bad.low <= bad.mean <= bad.high
    assert "in 2 simulated runs on 6 given tables" in bad.text


def test_a_simulation_repeats_itself_and_needs_rows() -> None:
    *sites, held_out = tables(4)
    made = plan(3, DELTA, 2, 3, cohort_rate=0.5).plan
    once, again = (expected_accuracy(made, NETWORK, sites, held_out, local=LOCAL) for _ in "ab")
    assert once == again
    with pytest.raises(InvalidInputError, match="one of each at least"):
        expected_accuracy(made, NETWORK, [], held_out)
