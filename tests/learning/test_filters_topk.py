"""Top-k is exact, however the values lie; what it leaves unsent is sent later."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.encodings import decode, encode
from truststram_lab.learning.filters import ErrorFeedback, apply_filters, run_filters
from truststram_lab.learning.filters.topk import largest
from truststram_lab.learning.weights import State

#: Few different values: ties everywhere.
TIED = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int32]),
    st.integers(1, 300),
    elements=st.integers(-4, 4),
)
SPREAD = hnp.arrays(
    np.float32, st.integers(1, 300), elements=st.floats(-(2.0**99), 2.0**99, width=32)
)


def by_sorting(values: np.ndarray, count: int) -> list[int]:
    order = np.argsort(-np.abs(values.astype(np.float64)), kind="stable")[:count]
    return sorted(int(place) for place in order if values[place] != 0)


@given(TIED | SPREAD, st.data())
def test_top_k_is_what_a_stable_sort_finds(values: np.ndarray, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, values.size))
    assert largest(values, count).tolist() == by_sorting(values, count)


@pytest.mark.parametrize("count", [1, 10, 999, 20_000, 99_999, 100_000])
@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).standard_normal(100_000),
        np.random.default_rng(1).standard_cauchy(100_000).astype(np.float32),
        np.sort(np.random.default_rng(2).standard_normal(100_000)),
        np.full(100_000, -3.0, np.float32),
        np.tile([0.0, 5.0, -5.0, 1.0], 25_000),
        # All large values in one place, and all of them in one group of the first stage.
        np.r_[np.full(1000, 9.0), np.linspace(0, 1, 99_000)],
        np.where(np.arange(100_000) % 3000 == 0, 9.0, 1e-3),
        np.zeros(100_000),
        np.full(100_000, 5e-324),
    ],
    ids=["normal", "cauchy", "sorted", "equal", "tied", "block", "stride", "zero", "subnormal"],
)
def test_no_layout_of_the_values_misleads_it(values: np.ndarray, count: int) -> None:
    assert largest(values, count).tolist() == by_sorting(values, count)


@given(st.integers(1, 500), st.integers(1, 10_000).map(lambda n: n / 10_000), st.integers(0, 2**32))
@example(100, 0.07, 0)
@example(10, 0.3, 0)
def test_exactly_the_share_is_kept_rounded_up(size: int, share: float, seed: int) -> None:
    delta = {"w": np.random.default_rng(seed).standard_normal(size)}
    kept = apply_filters(delta, [{"type": "sparsification", "top_k": share}])["w"]
    wanted = math.ceil(Fraction(repr(share)) * size)
    assert np.count_nonzero(kept) == wanted
    assert (kept[kept != 0] == delta["w"][kept != 0]).all()
    assert np.abs(kept[kept != 0]).min() >= np.abs(delta["w"][kept == 0]).max(initial=0.0)


def test_every_array_keeps_its_own_share() -> None:
    delta = {"large": np.full(100, 100.0), "small": np.linspace(0.1, 1, 10).reshape(2, 5)}
    kept = apply_filters(delta, [{"type": "sparsification", "top_k_percent": 10}])
    assert np.count_nonzero(kept["large"]) == 10
    assert kept["small"].tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 0, 1.0]]


def test_sparser_twice_is_the_sparser_of_both() -> None:
    delta = {"w": np.random.default_rng(3).standard_normal((30, 40)).astype(np.float32)}
    one = {"type": "sparsification", "top_k": 0.2}
    two = {"type": "sparsification", "top_k": 0.05}
    expected = apply_filters(delta, [two])["w"]
    for filters in ([one, two], [two, one], [two, two]):
        np.testing.assert_array_equal(apply_filters(delta, filters)["w"], expected)


CHAINS = [
    [{"type": "sparsification", "top_k": 0.05}],
    [{"type": "quantization", "bits": 1}],
    [{"type": "quantization", "bits": 3}],
    [{"type": "sparsification", "top_k": 0.05}, {"type": "quantization", "bits": 4}],
    [{"type": "quantization", "bits": 4}, {"type": "sparsification", "top_k": 0.05}],
    [{"type": "sparsification", "top_k": 1.0}, {"type": "norm_validation", "max_norm": 1e9}],
    [{"type": "norm_validation", "max_norm": 1e9}],
]


@pytest.mark.parametrize("filters", CHAINS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_what_was_sent_and_the_residual_are_all_there_was(
    filters: list[dict[str, object]], dtype: type
) -> None:
    rng = np.random.default_rng(4)
    feedback = ErrorFeedback()
    total: State = {"w": np.zeros((40, 25)), "b": np.zeros(7)}
    sent: State = {name: array.copy() for name, array in total.items()}
    for _ in range(20):
        delta = {n: rng.standard_normal(a.shape).astype(dtype) for n, a in total.items()}
        delta["steps"] = np.array(5)
        filtered = run_filters(delta, filters, feedback=feedback)
        assert filtered.feedback is not None
        feedback = filtered.feedback
        arrived, _ = decode(encode(filtered.parts).body, delta)
        for name in total:
            total[name] += delta[name]
            sent[name] += arrived[name]
    # Rounding of the sums in the residual's own type, float32 for float16 and float32.
    rounding = 1e-13 if dtype is np.float64 else 2e-5
    for name in total:
        left = feedback.residual.get(name, np.zeros(total[name].shape))
        np.testing.assert_allclose(sent[name] + left, total[name], atol=rounding, rtol=0)
    assert "steps" not in feedback.residual


def test_a_coordinate_that_waits_is_sent_in_the_end() -> None:
    delta = {"w": np.array([1.0, 0.4, 0.3])}
    feedback = ErrorFeedback()
    sent = np.zeros(3)
    for _ in range(12):
        filtered = run_filters(delta, [{"type": "sparsification", "top_k": 0.3}], feedback=feedback)
        assert filtered.feedback is not None
        feedback = filtered.feedback
        sent += filtered.delta()["w"]
    assert (sent > 0).all()
    assert np.count_nonzero(filtered.delta()["w"]) == 1


def test_feedback_comes_after_the_noise_and_is_not_clipped() -> None:
    feedback = ErrorFeedback({"w": np.array([50.0, 0.0, 0.0])})
    filters = [{"type": "gradient_clip"}, {"type": "sparsification", "top_k": 0.3}]
    filtered = run_filters({"w": np.array([0.0, 3.0, 4.0])}, filters, feedback=feedback)
    assert filtered.delta()["w"].tolist() == [50.0, 0.0, 0.0]
    assert filtered.feedback is not None
    np.testing.assert_allclose(filtered.feedback.residual["w"], [0, 0.6, 0.8], rtol=1e-12)


def test_a_former_state_is_not_changed_so_that_a_refused_round_can_be_sent_again() -> None:
    delta = {"w": np.random.default_rng(6).standard_normal(100)}
    filters = [{"type": "sparsification", "top_k": 0.1}]
    first = run_filters(delta, filters, feedback=ErrorFeedback()).feedback
    assert first is not None
    before = first.residual["w"].tobytes()
    again = [encode(run_filters(delta, filters, feedback=first).parts).body for _ in range(2)]
    assert again[0] == again[1]
    assert first.residual["w"].tobytes() == before


@pytest.mark.parametrize("late", [{"type": "gradient_clip"}, {"type": "gaussian_noise"}])
def test_clipping_or_noise_after_compression_is_refused_with_feedback(
    late: dict[str, object],
) -> None:
    filters = [{"type": "sparsification"}, late]
    with pytest.raises(InvalidInputError, match="cannot follow sparsification"):
        run_filters({"w": np.ones(3)}, filters, feedback=ErrorFeedback())


@pytest.mark.parametrize(
    ("residual", "sentence"),
    [
        ({"v": np.zeros(3)}, "'v' of shape .* is not"),
        ({"w": np.zeros((3, 1))}, r"has shape \(3,\)"),
        ({"n": np.zeros(())}, "'n' of shape .* is not"),
        ({"w": np.array([0, np.nan, 0])}, "is not finite"),
    ],
)
def test_a_residual_of_another_model_is_refused(residual: State, sentence: str) -> None:
    delta = {"w": np.ones(3), "n": np.array(1)}
    with pytest.raises(InvalidInputError, match=sentence):
        run_filters(delta, [{"type": "quantization"}], feedback=ErrorFeedback(residual))
