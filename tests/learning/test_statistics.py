from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.exceptions import InvalidInputError, UpdateRejectedError
from truststram_lab.learning import weights
from truststram_lab.learning.statistics import (
    check_moments,
    empty_moments,
    local_moments,
    merge_moments,
)
from truststram_lab.learning.weights import State
from truststram_lab.schemas.tables import Column, Signature

SIGNATURE = Signature(
    columns=[
        Column(name="age", kind="numeric", nullable=True),
        Column(name="ward", kind="categorical", nullable=True, categories=["A", "B", "C"]),
        Column(name="smoker", kind="boolean"),
        Column(name="town", kind="categorical", categories=["x", "y"]),
    ],
    target="died",
    classes=["False", "True"],
    positive_class="True",
)


def a_table(rows: int, seed: int = 0, offset: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age = rng.normal(60 + offset, 15, rows)
    age[rng.random(rows) < 0.2] = np.nan
    return pd.DataFrame(
        {
            "age": age,
            "ward": rng.choice(np.array(["A", "B", "C", None], dtype=object), rows),
            "smoker": rng.random(rows) < 0.3,
            "town": rng.choice(["x", "y"], rows),
        }
    )


@given(
    st.integers(1, 60),
    st.lists(st.integers(0, 60), max_size=6),
    st.sampled_from([0.0, 1e6, -1e9]),
    st.integers(0, 2**32),
)
def test_the_merge_does_not_depend_on_the_split(
    rows: int, cuts: list[int], offset: float, seed: int
) -> None:
    table = a_table(rows, seed, offset)
    whole = merge_moments([local_moments(table, SIGNATURE)], SIGNATURE)
    edges = [0, *sorted(min(cut, rows) for cut in cuts), rows]
    pieces = [
        local_moments(table.iloc[start:stop], SIGNATURE)
        for start, stop in itertools.pairwise(edges)
        if stop > start
    ]
    merged = merge_moments(pieces, SIGNATURE)
    assert merged.rows == whole.rows
    assert merged.sites == len(pieces)
    for found, expected in zip(merged.columns, whole.columns, strict=True):
        assert (found.count, found.missing) == (expected.count, expected.missing)
        assert found.category_counts == expected.category_counts
        if expected.mean is not None and expected.variance is not None:
            assert found.mean == pytest.approx(expected.mean, rel=1e-12)
            # A variance is known to eps * mean**2 and no better, in one piece or in many.
            rounding = 1e-15 * expected.mean**2
            assert found.variance == pytest.approx(expected.variance, rel=1e-12, abs=rounding)


def test_moments_are_those_of_the_column() -> None:
    table = a_table(200)
    merged = merge_moments([local_moments(table, SIGNATURE)], SIGNATURE)
    age, ward, smoker, town = merged.columns
    assert age.mean == pytest.approx(table["age"].mean(), rel=1e-13)
    assert age.variance == pytest.approx(table["age"].var(ddof=0), rel=1e-13)
    assert age.missing == int(table["age"].isna().sum())
    assert ward.category_counts == [int((table["ward"] == c).sum()) for c in "ABC"]
    assert ward.missing == int(table["ward"].isna().sum())
    assert smoker.mean == pytest.approx(table["smoker"].mean())
    assert town.missing == 0
    assert (town.mean, town.variance) == (None, None)


def test_moments_travel_as_a_file() -> None:
    moments = local_moments(a_table(30), SIGNATURE)
    found, _ = weights.decode(weights.encode(moments))
    check_moments(found, SIGNATURE, 5)
    assert merge_moments([found], SIGNATURE) == merge_moments([moments], SIGNATURE)


def test_a_mapping_of_lists_is_a_table_too() -> None:
    table = a_table(30)
    lists = {name: table[name].tolist() for name in table.columns}
    for name, array in local_moments(lists, SIGNATURE).items():
        assert array.tobytes() == local_moments(table, SIGNATURE)[name].tobytes()


def test_no_single_value_is_in_the_moments() -> None:
    moments = local_moments(a_table(30), SIGNATURE)
    assert {name: array.shape for name, array in moments.items()} == {
        "rows": (1,),
        "count": (2,),
        "mean": (2,),
        "m2": (2,),
        "missing": (4,),
        "categories": (5,),
    }


def test_a_column_without_a_value_anywhere_has_no_mean() -> None:
    table = a_table(10).assign(age=np.nan)
    age = merge_moments([local_moments(table, SIGNATURE)] * 2, SIGNATURE).columns[0]
    assert (age.count, age.missing, age.mean, age.variance) == (0, 20, None, None)


def test_a_site_without_a_value_does_not_move_the_mean() -> None:
    full, empty = a_table(10), a_table(10).assign(age=np.nan)
    alone = merge_moments([local_moments(full, SIGNATURE)], SIGNATURE).columns[0]
    both = [local_moments(empty, SIGNATURE), local_moments(full, SIGNATURE)]
    joined = merge_moments(both, SIGNATURE).columns[0]
    assert (joined.mean, joined.variance) == (alone.mean, alone.variance)


def good() -> State:
    return local_moments(a_table(20), SIGNATURE)


def changed(name: str, value: object) -> State:
    moments = {key: array.copy() for key, array in good().items()}
    moments[name][0] = value
    return moments


@pytest.mark.parametrize(
    ("moments", "sentence"),
    [
        ({k: v for k, v in good().items() if k != "m2"}, "'m2' is missing"),
        ({**good(), "mean": np.zeros(3)}, r"shape \(3,\), expected \(2,\)"),
        ({**good(), "count": np.zeros(2)}, "type float64, expected int64"),
        (changed("mean", np.nan), "not finite"),
        (changed("m2", -1.0), "'m2' has the negative value -1.0"),
        (changed("categories", -3), "'categories' has the negative value -3"),
        (changed("count", 21), "'age' has 21 values"),
        (changed("categories", 2**62), "'ward' has"),
        (changed("rows", 4), "The site has 4 rows, fewer than the 5"),
        (changed("rows", -1), "-1 rows"),
    ],
)
def test_impossible_moments_are_rejected(moments: State, sentence: str) -> None:
    with pytest.raises(UpdateRejectedError, match=sentence):
        check_moments(moments, SIGNATURE, 5)
    with pytest.raises(UpdateRejectedError, match=sentence):
        merge_moments([good(), moments], SIGNATURE, 5)


def test_a_mean_of_nothing_is_rejected() -> None:
    moments = local_moments(a_table(10).assign(age=np.nan), SIGNATURE)
    moments["mean"][0] = 1.0
    with pytest.raises(UpdateRejectedError, match="without a value"):
        check_moments(moments, SIGNATURE, 5)


def test_means_too_far_apart_are_rejected_not_merged_to_infinity() -> None:
    with pytest.raises(UpdateRejectedError, match="scale the column down"):
        merge_moments([changed("mean", 1e300), changed("mean", -1e300)], SIGNATURE)


def test_no_site_is_rejected() -> None:
    with pytest.raises(UpdateRejectedError, match="No site"):
        merge_moments([], SIGNATURE)


def test_empty_moments_are_rejected_as_too_few_rows() -> None:
    with pytest.raises(UpdateRejectedError, match="0 rows"):
        check_moments(empty_moments(SIGNATURE), SIGNATURE, 1)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (a_table(3).drop(columns=["age"]), "'age' is missing; the model takes 4 columns"),
        (a_table(3).drop(columns=["age", "town"]), r"'age' is missing \(and 1 more\)"),
        (a_table(3).assign(aeg=1), "'aeg' is not a column; did you mean 'age'"),
        (a_table(3).assign(died=True), "'died' is what the model predicts"),
        (a_table(3).assign(zzzz=1), "leave it out"),
        (a_table(3).assign(age=[1.0, np.inf, 2.0]), "'age' in row 1 is infinite"),
        (a_table(3).assign(age=[1.0, 1e200, 2.0]), "as large as 1e.200"),
        (a_table(3).assign(age=["1", "2", "3"]), "'age' is '1' in row 0; a number is needed"),
        (a_table(3).assign(smoker=[True, None, False]), "'smoker' in row 1 is missing"),
        (a_table(3).assign(smoker=[0, 2, 1]), "'smoker' in row 1 is .*2.*; use True or False"),
        (a_table(3).assign(ward=["A", "D", "B"]), "'ward' in row 1 is 'D', which is no category"),
        (a_table(3).assign(town=["x", "y", None]), "'town' in row 2 is missing"),
        (pd.concat([a_table(3), a_table(3)[["age"]]], axis=1), "'age' is there 2 times"),
    ],
)
def test_an_unusable_table_is_refused_by_column_and_row(table: pd.DataFrame, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        local_moments(table, SIGNATURE)


def test_the_row_is_named_by_its_label() -> None:
    table = a_table(3).assign(age=[1.0, np.inf, 2.0])
    table.index = pd.Index(["p1", "p2", "p3"])
    with pytest.raises(InvalidInputError, match="in row 'p2' is infinite"):
        local_moments(table, SIGNATURE)


def test_lists_of_different_lengths_are_refused() -> None:
    lists = {"age": [1.0, 2.0], "ward": ["A"], "smoker": [True, False], "town": ["x", "y"]}
    with pytest.raises(InvalidInputError, match="'ward' has 1 values, others have up to 2"):
        local_moments(lists, SIGNATURE)
