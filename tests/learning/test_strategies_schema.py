from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.schemas.strategies import (
    STRATEGY_NAMES,
    AnyStrategy,
    FedAdam,
    FedAvg,
    FedProx,
    FedYogi,
    Krum,
    MultiKrum,
    Strategy,
    TrimmedMean,
    as_strategy,
    parse_strategy,
    strategy_text,
)


class Plan(BaseModel):
    strategy: Strategy = FedAvg()


beta = st.floats(0, 1, exclude_max=True)
rate = st.floats(1e-6, 100)
any_strategy: st.SearchStrategy[AnyStrategy] = st.one_of(
    st.sampled_from(STRATEGY_NAMES).map(parse_strategy),
    st.builds(FedProx, mu=st.floats(0, 1000)),
    st.builds(FedYogi, server_learning_rate=rate, beta1=beta, beta2=beta, tau=st.floats(1e-9, 1)),
    st.builds(TrimmedMean, fraction=st.floats(0, 0.5, exclude_max=True)),
    st.builds(MultiKrum, hostile=st.integers(0, 4_998), keep=st.none() | st.integers(1, 10_000)),
)


@given(any_strategy)
def test_the_text_of_a_strategy_reads_back_as_itself(strategy: AnyStrategy) -> None:
    assert parse_strategy(strategy_text(strategy)) == strategy


@given(any_strategy)
def test_a_strategy_survives_the_wire(strategy: AnyStrategy) -> None:
    plan = Plan(strategy=strategy)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


@given(st.sampled_from(STRATEGY_NAMES), st.randoms(use_true_random=False))
def test_case_blanks_hyphens_and_underscores_make_no_difference(name: str, random: Random) -> None:
    bare = name.replace("_", "")
    written = "".join(
        (letter.upper() if random.random() < 0.5 else letter)
        + random.choice(["", "", "-", "_", " "])
        for letter in bare
    )
    assert parse_strategy(written).name == name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("federated_averaging", "fedavg"),
        ("FedAvg", "fedavg"),
        ("fed_avg", "fedavg"),
        ("Federated Averaging", "fedavg"),
        ("FedTrimmedAvg", "trimmed_mean"),
        ("FedMedian", "median"),
        ("multikrum", "multi_krum"),
    ],
)
def test_other_names_of_the_same_thing_are_understood(written: str, name: str) -> None:
    assert parse_strategy(written).name == name


def test_parameters_are_read_by_name_and_by_synonym() -> None:
    assert parse_strategy("fedyogi: tau=0.01, eta=0.1") == FedYogi(
        tau=0.01, server_learning_rate=0.1
    )
    assert as_strategy({"name": "krum", "num_malicious_clients": 2}) == Krum(hostile=2)
    assert as_strategy(Krum(hostile=2)) == Krum(hostile=2)


def test_an_older_plan_names_its_strategy_only() -> None:
    assert Plan.model_validate({"strategy": "fedavg"}).strategy == FedAvg()
    assert Plan.model_validate({}).strategy == FedAvg()


def test_the_defaults_of_the_adaptive_strategies_are_the_papers() -> None:
    for strategy in (FedAdam(), FedYogi()):
        assert (strategy.beta1, strategy.beta2, strategy.tau) == (0.9, 0.99, 1e-3)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("fedagv", "There is no strategy 'fedagv'; did you mean 'fedavg'?"),
        ("qqq", "choose one of fedavg, fedprox,"),
        ("", "There is no strategy ''"),
        ("fedyogi:tua=1", "no parameter 'tua'; did you mean 'tau'?"),
        ("fedavg:mu=1", "The strategy fedavg has no parameter 'mu'; it takes none."),
        ("krum:zzz=1", "it has hostile."),
        ("fedyogi:tau=0", "tau of fedyogi is '0', but must be a number, more than 0"),
        ("trimmed_mean:fraction=0.5", "at least 0 and less than 0.5; 0.2 is usual"),
        ("trimmed_mean:fraction=-0.1", "at least 0 and less than 0.5"),
        ("fedprox:mu=nan", "mu of fedprox is 'nan'"),
        ("fedprox:mu=-1", "at least 0 and at most 1000; 0.1 is usual"),
        ("krum:hostile=1.5", "must be a whole number, at least 0"),
        ("multi_krum:keep=0", "at least 1 and at most 10000; it can be left out"),
        ("fedyogi:tau", "is no key=value"),
        ("fedyogi:tau=1,tau=1", "gives tau twice"),
        ("krum:f=1,hostile=1", "a second time"),
    ],
)
def test_what_cannot_be_read_gets_one_sentence_with_the_way_out(
    written: str, sentence: str
) -> None:
    with pytest.raises(InvalidInputError) as error:
        parse_strategy(written)
    assert sentence in error.value.message
    assert "\n" not in error.value.message


def test_the_wire_takes_no_unknown_field() -> None:
    with pytest.raises(ValidationError, match="extra"):
        Plan.model_validate({"strategy": {"name": "fedavg", "mu": 1}})


@given(st.floats(0.001, 0.5, exclude_max=True))
def test_the_least_number_of_updates_is_the_first_that_trims_one(fraction: float) -> None:
    rule = TrimmedMean(fraction=fraction)
    least = rule.least_updates
    assert rule.trimmed(least) >= 1
    assert least == 3 or rule.trimmed(least - 1) == 0
    assert 2 * rule.trimmed(least) < least


@given(st.integers(0, 4_998), st.none() | st.integers(1, 10_000))
def test_krum_counts_what_it_needs_by_its_f(hostile: int, keep: int | None) -> None:
    assert Krum(hostile=hostile).least_updates == 2 * hostile + 3
    assert MultiKrum(hostile=hostile, keep=keep).least_updates >= 2 * hostile + 3


def test_only_rules_that_see_single_updates_say_so() -> None:
    seeing = {name for name in STRATEGY_NAMES if parse_strategy(name).sees_single_updates}
    assert seeing == {"median", "trimmed_mean", "krum", "multi_krum"}
