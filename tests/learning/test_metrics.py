from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, recall_score
from sklearn.metrics import log_loss as reference_log_loss

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.metrics import log_loss, score, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_the_published_one(
    successes: int, trials: int, low: float, high: float
) -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion: comparison of
    # seven methods", Statistics in Medicine 17, 857-872, table I, method 3.
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_mirrors(counts: tuple[int, int]) -> None:
    successes, trials = counts
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    mirrored = wilson_interval(trials - successes, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 3), (4, 3)])
def test_a_share_of_nothing_is_refused(successes: int, trials: int) -> None:
    with pytest.raises(InvalidInputError, match="is no share"):
        wilson_interval(successes, trials)


def predictions(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, n), rng.dirichlet(np.ones(classes), n)


@given(st.integers(5, 60), st.integers(2, 5), st.integers(0, 2**32))
def test_scores_are_those_of_scikit_learn(n: int, classes: int, seed: int) -> None:
    codes, shares = predictions(n, classes, seed)
    labels = [f"c{place}" for place in range(classes)]
    found = score(codes, shares, labels)
    predicted = shares.argmax(axis=1)
    assert found.accuracy == pytest.approx(accuracy_score(codes, predicted))
    assert found.rows == n
    assert (found.low, found.high) == wilson_interval(int((codes == predicted).sum()), n)
    present = np.unique(codes)
    expected = recall_score(codes, predicted, labels=present, average=None)
    assert found.recall == pytest.approx(
        {f"c{code}": share for code, share in zip(present, expected, strict=True)}
    )
    reference = reference_log_loss(codes, shares, labels=range(classes))
    assert log_loss(codes, shares) == pytest.approx(reference)


def test_a_certain_mistake_costs_a_finite_loss() -> None:
    loss = log_loss(np.array([0]), np.array([[0.0, 1.0]]))
    assert loss == pytest.approx(-math.log(np.finfo(float).tiny))


@pytest.mark.parametrize("shares", [np.ones((2, 2)), np.ones((3, 3)), np.ones((0, 2))])
def test_predictions_that_do_not_fit_are_refused(shares: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="do not fit"):
        score(np.zeros(3, int), shares, ["a", "b"])


def test_no_row_is_no_score() -> None:
    with pytest.raises(InvalidInputError, match="at least one row"):
        score(np.zeros(0, int), np.ones((0, 2)), ["a", "b"])
