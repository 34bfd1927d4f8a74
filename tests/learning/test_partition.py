from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.partition import dirichlet_split, split_by_column, stratified_holdout

LABELS = st.lists(st.integers(0, 4), min_size=4, max_size=120).map(np.array)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def labels(n: int = 400, classes: int = 3, seed: int = 0) -> np.ndarray:
    return rng(seed).integers(0, classes, n)


@given(LABELS, st.floats(0.05, 0.95), st.integers(0, 2**32))
def test_a_holdout_covers_every_row_exactly_once(y: np.ndarray, share: float, seed: int) -> None:
    try:
        train, test = stratified_holdout(y, share, rng(seed))
    except InvalidInputError:
        assert np.bincount(y).max() < 2 or len(y) * share < 0.5
        return
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(y)))


@given(LABELS, st.floats(0.05, 0.95), st.integers(0, 2**32))
def test_a_holdout_has_every_class_on_both_sides(y: np.ndarray, share: float, seed: int) -> None:
    sizes = np.bincount(y)
    if sizes.max() < 2:
        return
    train, test = stratified_holdout(y, share, rng(seed))
    for code in np.flatnonzero(sizes >= 2):
        assert code in y[train]
        assert code in y[test]
        assert abs((y[test] == code).sum() - share * sizes[code]) <= 1


def test_a_holdout_has_the_share_it_was_asked_for() -> None:
    y = np.repeat([0, 1], [357, 212])
    train, test = stratified_holdout(y, 0.25, rng())
    assert (len(train), len(test)) == (427, 142)
    assert (y[test] == 1).mean() == pytest.approx(212 / 569, abs=0.005)


def test_the_same_generator_gives_the_same_holdout() -> None:
    one, other = (stratified_holdout(labels(), 0.25, rng(3))[1] for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert set(one) != set(stratified_holdout(labels(), 0.25, rng(4))[1])


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_outside_zero_to_one_is_refused(share: float) -> None:
    with pytest.raises(InvalidInputError, match="cannot be held out; choose one between 0 and 1"):
        stratified_holdout(labels(), share, rng())


@pytest.mark.parametrize("y", [np.array([], int), np.array([0]), np.array([0, 1, 2])])
def test_rows_too_few_to_hold_out_are_refused(y: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="too few to hold out"):
        stratified_holdout(y, 0.5, rng())


@given(
    st.integers(60, 300),
    st.integers(2, 5),
    st.integers(1, 6),
    st.floats(0.3, 100),
    st.integers(0, 2**32),
)
def test_a_split_covers_every_row_exactly_once(
    n: int, classes: int, sites: int, alpha: float, seed: int
) -> None:
    y = labels(n, classes, seed)
    parts = dirichlet_split(y, sites, alpha, rng(seed))
    assert len(parts) == sites
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(n))
    for part in parts:
        assert len(part) >= 5
        assert len(np.unique(y[part])) >= 2


def test_the_same_generator_gives_the_same_split() -> None:
    one, other = (dirichlet_split(labels(), 4, 0.5, rng(9)) for _ in range(2))
    assert all((a == b).all() for a, b in zip(one, other, strict=True))


def skew(alpha: float) -> float:
    """Mean distance between the sites' class shares and the table's."""
    y = labels(2000, 4)
    shares = [np.bincount(y[p], minlength=4) / len(p) for p in dirichlet_split(y, 5, alpha, rng(1))]
    return float(np.abs(np.array(shares) - np.bincount(y) / len(y)).mean())


def test_a_smaller_alpha_makes_sites_more_different() -> None:
    assert skew(0.1) > skew(1.0) > skew(100.0)
    assert skew(1e6) < 0.01


def test_a_site_of_one_class_is_possible_when_allowed() -> None:
    parts = dirichlet_split(np.zeros(40, int), 3, 1.0, rng(), min_classes=1)
    assert sum(len(part) for part in parts) == 40


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"sites": 0}, "cannot be dealt to 0 sites"),
        ({"alpha": 0.0}, "alpha is above 0"),
        ({"alpha": float("nan")}, "alpha is above 0"),
        ({"alpha": 1e7}, "at most 1e.06"),
        ({"sites": 100}, "400 rows are too few for 100 sites .* choose 80 sites or fewer"),
        ({"y": np.array([0, 1])}, "too few for even one site"),
        ({"y": np.zeros(40, int)}, "rows have 1 class, but every site needs 2"),
        ({"sites": 60, "alpha": 0.01}, "choose fewer sites, such as --clients"),
    ],
)
def test_an_impossible_split_is_refused_with_the_way_out(
    arguments: dict[str, object], sentence: str
) -> None:
    chosen: dict[str, Any] = {"y": labels(), "sites": 4, "alpha": 0.5, "rng": rng(), **arguments}
    with pytest.raises(InvalidInputError, match=sentence):
        dirichlet_split(**chosen)


@pytest.mark.parametrize(("sites", "alpha"), [(40, 0.1), (60, 0.3), (20, 0.01)])
def test_the_number_of_sites_in_the_way_out_works(sites: int, alpha: float) -> None:
    y = labels(classes=2)
    with pytest.raises(InvalidInputError) as caught:
        dirichlet_split(y, sites, alpha, rng())
    fewer = re.search(r"--clients (\d+)", caught.value.message)
    assert fewer is not None
    assert len(dirichlet_split(y, int(fewer[1]), alpha, rng(1))) == int(fewer[1])


@given(st.lists(st.sampled_from(["north", "south", "10", "9", ""]), max_size=40))
def test_a_column_deals_every_row_to_the_site_of_its_value(values: list[str]) -> None:
    parts = split_by_column(values)
    assert set(parts) == set(values)
    for name, part in parts.items():
        assert [values[place] for place in part] == [name] * len(part)
    assert sum(len(part) for part in parts.values()) == len(values)


def test_sites_with_numbers_as_names_are_in_numeric_order() -> None:
    assert list(split_by_column(["10", "9", "10", "1"])) == ["1", "9", "10"]
    assert list(split_by_column(["b", "a", "10"])) == ["10", "a", "b"]
