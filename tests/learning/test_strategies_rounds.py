"""What ``aggregate`` promises of every strategy, and the oracles of those built on a mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.exceptions import InvalidInputError, UpdateRejectedError
from truststram_lab.learning import weights
from truststram_lab.learning.strategies import (
    Mean,
    aggregate,
    expected_update,
    fed_avg,
    shared_with_sites,
)
from truststram_lab.learning.weights import State
from truststram_lab.schemas.strategies import (
    STRATEGY_NAMES,
    AnyStrategy,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedProx,
    FedYogi,
    Scaffold,
    parse_strategy,
)

ALL = [parse_strategy(name) for name in STRATEGY_NAMES]
MEANS = [strategy for strategy in ALL if not strategy.sees_single_updates]


def state(rng: np.random.Generator, dtype: str = "float32") -> State:
    return {
        "w": rng.normal(size=(3, 2)).astype(dtype),
        "norm.num_batches_tracked": np.array(rng.integers(0, 100), np.int64),
        "b": rng.normal(size=3).astype(dtype),
    }


def updates(strategy: AnyStrategy, sites: int, seed: int, dtype: str = "float32") -> list[State]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(sites):
        update = state(rng, dtype)
        for name, array in expected_update(strategy, update).items():
            if name not in update:
                update[name] = rng.normal(size=array.shape).astype(array.dtype)
        found.append(update)
    return found


def bits(found: State) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in found.items()}


@pytest.mark.parametrize("strategy", ALL, ids=STRATEGY_NAMES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_round_keeps_names_shapes_and_types(strategy: AnyStrategy, dtype: str) -> None:
    base = state(np.random.default_rng(0), dtype)
    found = aggregate(strategy, base, updates(strategy, 5, 1, dtype), [1, 2, 3, 4, 5]).state
    assert list(found) == list(base)
    for name, array in base.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)


@pytest.mark.parametrize("strategy", ALL, ids=STRATEGY_NAMES)
def test_a_round_leaves_its_arguments_alone(strategy: AnyStrategy) -> None:
    base, sent = state(np.random.default_rng(0)), updates(strategy, 5, 1)
    first = aggregate(strategy, base, sent, [1] * 5)
    before = [bits(each) for each in (base, *sent, first.server_state)]
    aggregate(strategy, base, sent, [1] * 5, first.server_state)
    assert [bits(each) for each in (base, *sent, first.server_state)] == before


@pytest.mark.parametrize("strategy", ALL, ids=STRATEGY_NAMES)
def test_a_stored_server_state_goes_on_to_the_same_bits(strategy: AnyStrategy) -> None:
    base = state(np.random.default_rng(0))
    model, memory = base, None
    again, blob = base, None
    for number in range(4):
        sent = updates(strategy, 5, number)
        through = aggregate(strategy, model, sent, [1, 2, 3, 4, 5], memory)
        model, memory = through.state, through.server_state
        loaded = None if blob is None else weights.decode(blob)[0]
        stored = aggregate(strategy, again, sent, [1, 2, 3, 4, 5], loaded)
        again, blob = stored.state, weights.encode(stored.server_state)
        assert bits(stored.state) == bits(through.state)
        assert bits(stored.server_state) == bits(through.server_state)


@pytest.mark.parametrize("strategy", ALL, ids=STRATEGY_NAMES)
def test_sites_that_changed_nothing_leave_the_model_as_it_was(strategy: AnyStrategy) -> None:
    base = state(np.random.default_rng(0))
    still = {
        name: np.zeros(a.shape, a.dtype) for name, a in expected_update(strategy, base).items()
    }
    assert bits(aggregate(strategy, base, [still] * 5, [1] * 5).state) == bits(base)


@pytest.mark.parametrize("strategy", ALL, ids=STRATEGY_NAMES)
def test_a_round_without_updates_is_refused(strategy: AnyStrategy) -> None:
    with pytest.raises(InvalidInputError, match=r"^0 updates|^No update|0 came"):
        aggregate(strategy, state(np.random.default_rng(0)), [], [])


@pytest.mark.parametrize("strategy", MEANS, ids=lambda strategy: strategy.name)
def test_a_mean_takes_a_single_update(strategy: AnyStrategy) -> None:
    base = state(np.random.default_rng(0))
    found = aggregate(strategy, base, updates(strategy, 1, 1), [7]).state
    assert not np.array_equal(found["w"], base["w"])


@pytest.mark.parametrize("strategy", ALL, ids=STRATEGY_NAMES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_rejected_with_its_array(
    strategy: AnyStrategy, value: float
) -> None:
    sent = updates(strategy, 5, 1)
    sent[3]["b"][1] = value
    with pytest.raises(UpdateRejectedError, match="Array 'b' has 1 values of 3 that are not fin"):
        aggregate(strategy, state(np.random.default_rng(0)), sent, [1] * 5)


@pytest.mark.parametrize("strategy", ALL, ids=STRATEGY_NAMES)
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"w": np.zeros((2, 3), np.float32)}, "has shape"),
        ({"w": np.zeros((3, 2), np.float64)}, "has type float64"),
        ({"extra": np.zeros(1, np.float32)}, "is not in the global model"),
    ],
)
def test_an_update_of_another_layout_is_rejected(
    strategy: AnyStrategy, change: State, sentence: str
) -> None:
    sent = updates(strategy, 5, 1)
    sent[4] = {**sent[4], **change}
    with pytest.raises(UpdateRejectedError, match=sentence):
        aggregate(strategy, state(np.random.default_rng(0)), sent, [1] * 5)


@pytest.mark.parametrize("strategy", ALL, ids=STRATEGY_NAMES)
def test_a_server_state_of_another_strategy_is_refused(strategy: AnyStrategy) -> None:
    base = state(np.random.default_rng(0))
    other = {"z/w": np.zeros((3, 2), np.float32)}
    with pytest.raises(InvalidInputError, match="another model or strategy"):
        aggregate(strategy, base, updates(strategy, 5, 1), [1] * 5, other)


def test_a_server_state_of_another_shape_is_refused_with_both() -> None:
    base = state(np.random.default_rng(0))
    memory = aggregate(FedAvgM(), base, updates(FedAvgM(), 2, 1), [1, 1]).server_state
    memory["m/b"] = np.zeros(4, np.float32)
    with pytest.raises(InvalidInputError, match=r"'m/b' of float32 \(4,\) for float32 \(3,\)"):
        aggregate(FedAvgM(), base, updates(FedAvgM(), 2, 1), [1, 1], memory)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("strategy", [FedAvg(), FedProx(mu=1)])
def test_fedavg_in_one_call_has_the_bits_of_its_two_steps(
    strategy: AnyStrategy, dtype: str
) -> None:
    base, sent = state(np.random.default_rng(0), dtype), updates(strategy, 7, 1, dtype)
    rows = [3, 1, 4, 1, 5, 9, 2]
    expected = weights.apply(base, fed_avg(sent, rows))
    assert bits(aggregate(strategy, base, sent, rows).state) == bits(expected)


def test_the_bits_of_a_mean_are_those_of_whole_array_sums() -> None:
    # Longer than a block and a read: walking in pieces must not show.
    rng = np.random.default_rng(0)
    sent = [{"w": rng.normal(size=600_001).astype("f4")} for _ in range(3)]
    rows = [5.0, 11.0, 7.0]
    sums = np.zeros(600_001)
    for update, row in zip(sent, rows, strict=True):
        sums += row / math.fsum(rows) * update["w"].astype(np.float64)
    assert fed_avg(sent, rows)["w"].tobytes() == sums.astype("f4").tobytes()


def test_an_array_that_lies_otherwise_in_memory_means_the_same() -> None:
    rng = np.random.default_rng(0)
    square = rng.normal(size=(300, 300))
    one = fed_avg([{"w": square.T}, {"w": square}], [1, 2])
    other = fed_avg([{"w": np.ascontiguousarray(square.T)}, {"w": square}], [1, 2])
    assert bits(one) == bits(other)


def test_whole_numbers_take_the_nearest_to_their_mean() -> None:
    counts = [{"n": np.array(v, np.int64)} for v in (10, 10, 15)]
    assert fed_avg(counts, [1, 1, 1])["n"] == 12
    assert fed_avg(counts, [1, 1, 8])["n"] == 14
    flags = [{"n": np.array([True, False])}, {"n": np.array([True, True])}]
    assert fed_avg(flags, [1, 3])["n"].tolist() == [True, True]


@pytest.mark.parametrize("strategy", MEANS, ids=lambda strategy: strategy.name)
def test_a_server_optimizer_leaves_whole_numbers_to_the_mean(strategy: AnyStrategy) -> None:
    base, sent = state(np.random.default_rng(0)), updates(strategy, 3, 1)
    key = "norm.num_batches_tracked"
    found = aggregate(strategy, base, sent, [1, 1, 1])
    mean = float(np.mean([update[key] for update in sent]))
    assert found.state[key] == base[key] + round(mean)
    assert not any(name.endswith("tracked") for name in found.server_state)


def test_a_count_that_leaves_its_type_is_refused_instead_of_wrapping() -> None:
    base = {"n": np.array([100], np.int8)}
    with pytest.raises(InvalidInputError, match="'n' of whole numbers would leave -128 to 127"):
        aggregate(FedAvg(), base, [{"n": np.array([100], np.int8)}], [1])


def test_a_model_that_is_no_longer_finite_is_refused_with_its_array() -> None:
    base = {"w": np.full(3, 3e38, np.float32)}
    with pytest.raises(InvalidInputError, match="Array 'w' is no longer finite"):
        aggregate(FedAvg(), base, [base], [1])
    with pytest.raises(InvalidInputError, match="Array 'w' is no longer finite"):
        aggregate(FedAvgM(server_learning_rate=100), base, [base], [1])


def test_a_mean_is_asked_for_once() -> None:
    mean = Mean([1.0])
    mean.add({"w": np.ones(2)})
    mean.result()
    with pytest.raises(InvalidInputError, match="0 updates came"):
        mean.result()


def test_only_scaffolds_sites_need_the_server_state() -> None:
    base = state(np.random.default_rng(0))
    for strategy in ALL:
        done = aggregate(strategy, base, updates(strategy, 5, 1), [1] * 5)
        shared = shared_with_sites(strategy, done.server_state)
        assert set(shared) == ({"c/w", "c/b"} if isinstance(strategy, Scaffold) else set())


def reddi(
    strategy: FedAdam | FedYogi, x: np.ndarray, deltas: list[np.ndarray], rounds: int
) -> np.ndarray:
    """Algorithm 2 of the paper, line by line, one number at a time."""
    x = x.copy()
    for i in range(x.size):
        m, v = 0.0, strategy.tau**2
        for number in range(rounds):
            d = float(deltas[number][i])
            m = strategy.beta1 * m + (1 - strategy.beta1) * d
            if isinstance(strategy, FedAdam):
                v = strategy.beta2 * v + (1 - strategy.beta2) * d**2
            else:
                v = v - (1 - strategy.beta2) * d**2 * math.copysign(1, v - d**2)
            x[i] += strategy.server_learning_rate * m / (math.sqrt(v) + strategy.tau)
    return x


@given(
    st.sampled_from([FedAdam, FedYogi]),
    st.floats(0, 0.99),
    st.floats(0, 0.999),
    st.floats(1e-4, 1),
    st.integers(0, 2**32),
)
def test_the_adaptive_strategies_are_the_papers_algorithm(
    kind: type[FedAdam] | type[FedYogi], beta1: float, beta2: float, tau: float, seed: int
) -> None:
    strategy = kind(server_learning_rate=0.1, beta1=beta1, beta2=beta2, tau=tau)
    rng = np.random.default_rng(seed)
    start, deltas = rng.normal(size=4), [rng.normal(size=4) for _ in range(5)]
    found, memory = {"x": start}, None
    for delta in deltas:
        done = aggregate(strategy, found, [{"x": delta}], [3], memory)
        found, memory = done.state, done.server_state
    np.testing.assert_allclose(found["x"], reddi(strategy, start, deltas, 5), rtol=1e-9, atol=1e-12)


def test_the_first_adaptive_step_has_no_bias_correction() -> None:
    strategy = FedAdam(server_learning_rate=1, beta1=0.9, beta2=0.99, tau=1e-3)
    done = aggregate(strategy, {"x": np.zeros(1)}, [{"x": np.ones(1)}], [1])
    # Corrected, the step would be 1 / (1 + tau): ten times the first moment.
    assert done.state["x"][0] == pytest.approx(0.1 / (math.sqrt(0.99e-6 + 0.01) + 1e-3), rel=1e-12)


@given(st.floats(0, 0.99), st.floats(0.01, 10), st.integers(0, 2**32))
def test_fedavgm_is_the_geometric_sum_of_the_means(momentum: float, rate: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(6, 3))
    found, memory = {"x": np.zeros(3)}, None
    strategy = FedAvgM(server_learning_rate=rate, momentum=momentum)
    for mean in means:
        done = aggregate(strategy, found, [{"x": mean}], [1], memory)
        found, memory = done.state, done.server_state
    expected = sum(
        rate * momentum ** (now - then) * means[then] for now in range(6) for then in range(now + 1)
    )
    np.testing.assert_allclose(found["x"], expected, rtol=1e-9, atol=1e-10)


def test_fedavgm_without_momentum_at_rate_one_is_fedavg_to_the_bit() -> None:
    base, sent = state(np.random.default_rng(0)), updates(FedAvg(), 4, 1)
    plain = aggregate(FedAvg(), base, sent, [1, 2, 3, 4]).state
    found = aggregate(FedAvgM(momentum=0), base, sent, [1, 2, 3, 4]).state
    assert bits(found) == bits(plain)
