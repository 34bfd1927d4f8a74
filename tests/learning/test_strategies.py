from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.exceptions import InvalidInputError, UpdateRejectedError
from truststram_lab.learning.strategies import fed_avg
from truststram_lab.learning.weights import State


def updates(sites: int, seed: int, dtype: str = "float64") -> list[State]:
    rng = np.random.default_rng(seed)
    return [
        {"w": rng.normal(size=(3, 2)).astype(dtype), "b": rng.normal(size=3).astype(dtype)}
        for _ in range(sites)
    ]


@given(
    st.lists(st.integers(1, 100_000), min_size=1, max_size=8),
    st.integers(0, 2**32),
)
def test_the_mean_is_numpys_weighted_mean(rows: list[int], seed: int) -> None:
    deltas = updates(len(rows), seed)
    found = fed_avg(deltas, rows)
    for name in ("w", "b"):
        expected = np.average([delta[name] for delta in deltas], axis=0, weights=rows)
        np.testing.assert_allclose(found[name], expected, rtol=1e-12, atol=1e-14)


@given(st.integers(1, 6), st.floats(1e-3, 1e3), st.integers(0, 2**32))
def test_only_the_ratio_of_the_weights_matters(sites: int, factor: float, seed: int) -> None:
    deltas = updates(sites, seed)
    rows = [float(place + 1) for place in range(sites)]
    one, other = fed_avg(deltas, rows), fed_avg(deltas, [factor * row for row in rows])
    np.testing.assert_allclose(one["w"], other["w"], rtol=1e-12, atol=1e-14)


def test_one_site_alone_keeps_its_update_bit_by_bit() -> None:
    (delta,) = updates(1, 0, "float32")
    assert fed_avg([delta], [88])["w"].tobytes() == delta["w"].tobytes()


def test_equal_updates_average_to_themselves() -> None:
    (delta,) = updates(1, 1, "float32")
    found = fed_avg([delta] * 5, [3, 1, 4, 1, 5])
    np.testing.assert_allclose(found["w"], delta["w"], rtol=1e-7)


def test_sums_of_float32_updates_are_exact_beyond_float32() -> None:
    # 2**24 + 1 is no float32: an accumulator of that type would lose the small update.
    deltas = [{"w": np.array([v], np.float32)} for v in (2.0**25, 2.0, 2.0, -(2.0**25))]
    assert fed_avg(deltas, [1, 1, 1, 1])["w"].tolist() == [1.0]


def test_the_result_has_the_updates_type() -> None:
    assert fed_avg(updates(2, 0, "float32"), [1, 2])["w"].dtype == np.float32


def test_updates_are_read_once_and_one_at_a_time() -> None:
    alive: list[int] = []

    def stream() -> Iterator[State]:
        for place, delta in enumerate(updates(4, 0)):
            alive.append(place)
            yield delta

    fed_avg(stream(), [1, 2, 3, 4])
    assert alive == [0, 1, 2, 3]


def test_the_inputs_are_left_alone() -> None:
    deltas = updates(2, 0)
    before = [delta["w"].copy() for delta in deltas]
    fed_avg(deltas, [1, 2])
    for delta, former in zip(deltas, before, strict=True):
        np.testing.assert_array_equal(delta["w"], former)


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_that_is_no_count_is_refused(weight: float) -> None:
    with pytest.raises(InvalidInputError, match="is no weight of a site"):
        fed_avg(updates(2, 0), [1, weight])


@pytest.mark.parametrize(("sites", "weights"), [(0, 0), (1, 2), (2, 1), (0, 1)])
def test_another_number_of_updates_than_weights_is_refused(sites: int, weights: int) -> None:
    with pytest.raises(InvalidInputError, match="weight"):
        fed_avg(updates(sites, 0), [1.0] * weights)


def test_an_update_that_does_not_look_like_the_first_is_rejected() -> None:
    odd = {"w": np.zeros((2, 2)), "b": np.zeros(3)}
    with pytest.raises(UpdateRejectedError, match="'w' has shape"):
        fed_avg([*updates(1, 0), odd], [1, 1])
