from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.splits import (
    deal_rows,
    iid_split,
    quantity_split,
    shards_split,
    top_up,
)
from truststram_lab.schemas.simulation import Hostile, hostile_text, parse_hostile
from truststram_lab.schemas.splits import Split, parse_split, split_text

SPLITS = ("iid", "dirichlet:0.3", "shards:2", "quantity:0.5")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def labels(n: int, classes: int = 10, seed: int = 0) -> np.ndarray:
    return rng(seed).integers(0, classes, n)


def dealt(text: str, y: np.ndarray, sites: int, seed: int = 0) -> list[np.ndarray]:
    return deal_rows(y, sites, parse_split(text), rng(seed), min_rows=1, min_classes=None)[0]


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(SPLITS), st.integers(20, 200), st.integers(1, 10), st.integers(0, 2**32))
def test_every_row_is_dealt_exactly_once_and_nobody_gets_none(
    text: str, rows: int, sites: int, seed: int
) -> None:
    y = labels(rows, 3, seed)
    parts = dealt(text, y, sites, seed)
    assert len(parts) == sites
    assert min(len(part) for part in parts) >= 1
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(rows))
    for one, other in zip(parts, dealt(text, y, sites, seed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_iid_sizes_differ_by_one_at_most() -> None:
    sizes = {len(part) for part in iid_split(1_003, 10, rng())}
    assert sizes == {100, 101}


def test_shards_give_few_classes_to_each_site() -> None:
    y = labels(6_000)
    parts = shards_split(y, 100, 2, rng())
    assert {len(part) for part in parts} == {30 * 2}
    # Two pieces, each of one class but where a piece crosses from one class to the next.
    assert np.mean([len(np.unique(y[part])) for part in parts]) < 2.2
    assert np.mean([len(np.unique(y[part])) for part in iid_split(6_000, 100, rng())]) > 9


def test_quantity_skews_sizes_and_not_classes() -> None:
    y = labels(20_000, 2)
    sizes = np.array([len(part) for part in quantity_split(20_000, 50, 0.5, rng(), min_rows=5)])
    alike = np.array([len(part) for part in quantity_split(20_000, 50, 1e4, rng())])
    assert sizes.min() >= 5
    assert sizes.std() > 10 * alike.std()
    shares = [y[part].mean() for part in quantity_split(20_000, 50, 0.5, rng()) if len(part) > 400]
    assert np.std(shares) < 0.05


def test_dirichlet_for_a_thousand_sites_keeps_the_skew() -> None:
    y = labels(5_000)
    parts, moved = deal_rows(
        y, 1_000, parse_split("dirichlet:0.3"), rng(), min_rows=2, min_classes=None
    )
    assert min(len(part) for part in parts) == 2
    assert 0 < moved < 1_000
    present = np.mean([len(np.unique(y[part])) for part in parts])
    even = np.mean([len(np.unique(y[part])) for part in iid_split(5_000, 1_000, rng())])
    assert present < 0.8 * even


def test_top_up_moves_no_more_than_it_must() -> None:
    y = np.array([0, 0, 0, 1, 1, 0])
    parts, moved = top_up([np.arange(6), np.array([], int), np.array([], int)], y, 1)
    assert moved == 2
    assert [len(part) for part in parts] == [4, 1, 1]
    # Class 0 is the giver's most frequent one.
    assert y[parts[1][0]] == y[parts[2][0]] == 0


@pytest.mark.parametrize("text", SPLITS)
def test_too_many_sites_are_refused_with_a_number(text: str) -> None:
    with pytest.raises(InvalidInputError, match="choose"):
        dealt(text, labels(10), 11)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("iid", Split(kind="iid")),
        ("dirichlet", Split(kind="dirichlet", alpha=0.5)),
        ("dirichlet:2", Split(kind="dirichlet", alpha=2.0)),
        ("shards", Split(kind="shards", shards=2)),
        ("shards:3", Split(kind="shards", shards=3)),
        ("quantity:0.1", Split(kind="quantity", alpha=0.1)),
    ],
)
def test_a_split_is_read_and_written(text: str, found: Split) -> None:
    assert parse_split(text) == found
    assert parse_split(split_text(found)) == found


@pytest.mark.parametrize(
    "text", ["", "shards:0", "shards:1.5", "dirichlet:0", "dirichlet:nan", "quantity:-1", "iid:3"]
)
def test_a_text_that_is_no_split_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a split"):
        parse_split(text)


def test_a_misspelt_split_names_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match="did you mean shards"):
        parse_split("shard:2")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.2:label_flip", Hostile(share=0.2, attack="label_flip")),
        ("0.3", Hostile(share=0.3, attack="sign_flip")),
        ("0.1:scale=50", Hostile(share=0.1, attack="scale", factor=50)),
        ("0.1:scale", Hostile(share=0.1, attack="scale", factor=10)),
        ("0.1:sign-flip=3", Hostile(share=0.1, attack="sign_flip", factor=3)),
    ],
)
def test_an_attack_is_read_and_written(text: str, found: Hostile) -> None:
    assert parse_hostile(text) == found
    assert parse_hostile(hostile_text(found)) == found


@pytest.mark.parametrize("text", ["2:scale", "x", "0.1:label_flip=3", "0.1:scale=x"])
def test_a_text_that_is_no_attack_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="says no share"):
        parse_hostile(text)


def test_a_misspelt_attack_names_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match="did you mean label_flip"):
        parse_hostile("0.1:label-flp")
