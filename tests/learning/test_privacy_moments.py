from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.privacy.moments import (
    noised_moments,
    noised_site_statistics,
    record_sensitivity,
)
from truststram_lab.learning.privacy.noise import SecureRandom
from truststram_lab.learning.statistics import check_moments, local_moments, merge_moments
from truststram_lab.schemas.tables import Column, Signature

SIGNATURE = Signature(
    columns=[
        Column(name="age", kind="numeric", nullable=True),
        Column(name="smokes", kind="boolean"),
        Column(name="city", kind="categorical", categories=["a", "b"]),
    ],
    target="ill",
    classes=["0", "1"],
    positive_class="1",
)
BOUNDS = {"age": (0.0, 100.0)}
KEY = bytes(range(32))


def table(n: int, seed: int = 0) -> dict[str, list[object]]:
    rng = np.random.default_rng(seed)
    return {
        "age": [None if missing else age for missing, age in
                zip(rng.random(n) < 0.1, rng.normal(50, 10, n), strict=True)],
        "smokes": list(rng.random(n) < 0.3),
        "city": list(rng.choice(["a", "b"], n, p=[0.8, 0.2])),
    }  # fmt: skip


def test_without_noise_the_moments_are_those_of_the_clipped_rows() -> None:
    rows = table(200)
    expected = local_moments(rows, SIGNATURE)
    found = noised_moments(rows, SIGNATURE, BOUNDS, 0.0)
    for name in ("rows", "count", "missing", "categories"):
        np.testing.assert_array_equal(found[name], expected[name])
    for name in ("mean", "m2"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9)
    far = {**rows, "age": [1e9] * 200}
    assert noised_moments(far, SIGNATURE, BOUNDS, 0.0)["mean"][0] == 100.0


@given(st.integers(0, 30), st.floats(0.1, 100), st.integers(0, 2**32))
def test_noised_moments_are_always_those_of_a_possible_table(
    n: int, noise: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    found = noised_moments(table(n), SIGNATURE, BOUNDS, noise, rng=rng)
    check_moments(found, SIGNATURE, 0)
    present = found["count"] > 0
    assert ((found["mean"] >= 0) & (found["mean"] <= [100, 1])).all()
    most = np.array([50.0**2, 0.25])
    assert (found["m2"][present] <= (most * found["count"])[present] * (1 + 1e-9)).all()


def test_noised_means_of_many_rows_are_near_the_true_ones_and_merge_as_any() -> None:
    sites = [table(4000, seed) for seed in range(3)]
    noised = [noised_moments(rows, SIGNATURE, BOUNDS, 2.0, rng=SecureRandom(KEY)) for rows in sites]
    found = merge_moments(noised, SIGNATURE).columns
    true = merge_moments([local_moments(rows, SIGNATURE) for rows in sites], SIGNATURE).columns
    assert found[0].mean == pytest.approx(true[0].mean, abs=0.5)
    assert found[0].variance == pytest.approx(true[0].variance, rel=0.15)
    assert found[1].mean == pytest.approx(true[1].mean, abs=0.01)
    assert found[2].category_counts == pytest.approx(true[2].category_counts, abs=50)


def test_no_row_moves_the_released_sums_further_than_the_sensitivity() -> None:
    def sums(rows: dict[str, list[object]]) -> np.ndarray:
        moments = local_moments(rows, SIGNATURE)
        parts = [moments["rows"], moments["categories"]]
        for place, half in enumerate((50.0, 0.5)):
            count, mean = moments["count"][place], moments["mean"][place] / half - 1
            square = moments["m2"][place] / half**2 + count * mean**2
            parts.append(np.array([count, count * mean, square]) if count else np.zeros(3))
        return np.concatenate(parts)

    worst = 0.0
    base = {"age": [40.0], "smokes": [False], "city": ["b"]}
    for age in (0.0, 100.0, 37.0, None):
        for smokes in (True, False):
            more = {"age": [40.0, age], "smokes": [False, smokes], "city": ["b", "a"]}
            worst = max(worst, float(np.linalg.norm(sums(more) - sums(base))))
    assert worst == pytest.approx(record_sensitivity(SIGNATURE))
    assert worst == pytest.approx(np.sqrt(8))


def test_site_level_statistics_weigh_sites_the_same_and_count_the_absent_as_zero() -> None:
    small, large = table(10, 1), table(1000, 2)
    moments = [local_moments(rows, SIGNATURE) for rows in (small, large)]
    found = noised_site_statistics(moments, SIGNATURE, BOUNDS, noise_multiplier=0.0, sites=2)
    assert found.columns[0].mean == pytest.approx((moments[0]["mean"] + moments[1]["mean"])[0] / 2)
    assert (found.rows, found.sites) == (0, 2)
    half = noised_site_statistics(moments, SIGNATURE, BOUNDS, noise_multiplier=0.0, sites=4)
    # The middle of the bounds stands for nothing.
    assert half.columns[0].mean == pytest.approx(50 + (found.columns[0].mean - 50) / 2)


def test_the_noise_of_site_level_statistics_has_the_planned_size() -> None:
    draws = [
        noised_site_statistics([], SIGNATURE, BOUNDS, noise_multiplier=0.5, sites=20)
        .columns[0]
        .mean
        for _ in range(2000)
    ]
    # z * sqrt(2 * 2 + 1) / 20, in half-widths of the bounds.
    assert np.std(draws) == pytest.approx(50 * 0.5 * np.sqrt(5) / 20, rel=0.1)


def test_bounds_that_are_missing_misspelt_or_no_range_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="'age' has no bounds"):
        noised_moments(table(3), SIGNATURE, {}, 1.0)
    with pytest.raises(InvalidInputError, match="did you mean 'age'"):
        noised_moments(table(3), SIGNATURE, {"agee": (0, 1)}, 1.0)
    with pytest.raises(InvalidInputError, match="the first must be the smaller"):
        noised_moments(table(3), SIGNATURE, {"age": (100.0, 0.0)}, 1.0)
    with pytest.raises(InvalidInputError, match="2 sites came"):
        noised_site_statistics(
            [local_moments(table(3), SIGNATURE)] * 2,
            SIGNATURE, BOUNDS, noise_multiplier=1.0, sites=1,
        )  # fmt: skip
