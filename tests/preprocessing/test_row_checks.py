from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.preprocessing import TableEncoder, validate_row
from truststram_lab.schemas.tables import Column, ColumnStatistics, Signature, Statistics

SIGNATURE = Signature(
    columns=[
        Column(name="mean radius", kind="numeric"),
        Column(name="age", kind="numeric", nullable=True),
        Column(name="smoker", kind="boolean"),
        Column(name="ward", kind="categorical", categories=["surgery", "medicine"]),
        Column(name="town", kind="categorical", nullable=True, categories=["x", "y"]),
    ],
    target="died",
    classes=["False", "True"],
    positive_class="True",
)
ROW: dict[str, Any] = {
    "mean radius": 14.1,
    "age": None,
    "smoker": False,
    "ward": "medicine",
    "town": None,
}


def test_a_good_row_comes_back_in_the_signatures_order() -> None:
    found = validate_row(dict(reversed(ROW.items())), SIGNATURE)
    assert found == ROW
    assert list(found) == list(ROW)


def test_numpys_and_pandas_scalars_become_plain_ones() -> None:
    row = {
        "mean radius": np.float32(1.5),
        "age": np.int64(3),
        "smoker": np.True_,
        "ward": np.str_("surgery"),
        "town": pd.NA,
    }
    found = validate_row(row, SIGNATURE)
    assert found == {
        "mean radius": 1.5,
        "age": 3,
        "smoker": True,
        "ward": "surgery",
        "town": None,
    }
    assert json.loads(json.dumps(found)) == found
    assert [type(value) for value in found.values()][:3] == [float, int, bool]


@pytest.mark.parametrize("flag", [0, 1, True, False, 1.0])
def test_a_boolean_may_be_zero_or_one(flag: float) -> None:
    assert validate_row({**ROW, "smoker": flag}, SIGNATURE)["smoker"] is bool(flag)


@pytest.mark.parametrize(
    ("change", "sentence", "field", "choices"),
    [
        (
            {"mean raduis": 1.0},
            "'mean raduis' is not a column; did you mean 'mean radius'?",
            "mean raduis",
            ["mean radius"],
        ),
        ({"died": True}, "'died' is what the model predicts, not an input", "died", None),
        ({"mean radius": ...}, "'mean radius' is missing; the model takes 5", "mean radius", None),
        ({"mean radius": "14.1"}, "is '14.1', of type str; give a number.", "mean radius", None),
        ({"mean radius": True}, "is True, of type bool; give a number.", "mean radius", None),
        ({"mean radius": [1.0]}, "of type list; give a number", "mean radius", None),
        ({"mean radius": None}, "has no value, which the model has not seen", "mean radius", None),
        ({"mean radius": float("nan")}, "is nan, which is no measurement", "mean radius", None),
        ({"mean radius": float("inf")}, "is inf", "mean radius", None),
        ({"mean radius": 10**400}, "is inf", "mean radius", None),
        ({"age": float("nan")}, "a finite number, or null where it is missing", "age", None),
        ({"smoker": "yes"}, "is 'yes', of type str; give true or false.", "smoker", None),
        ({"smoker": 2}, "is 2, of type int; give true or false.", "smoker", None),
        (
            {"ward": "surgry"},
            "'ward' is 'surgry', which is no category; did you mean 'surgery'?",
            "ward",
            ["surgery"],
        ),
        ({"ward": "zzz"}, "the model knows 'surgery', 'medicine'.", "ward", None),
        ({"ward": 3}, "is 3, of type int; give a text such as 'surgery'.", "ward", None),
        ({"ward": None}, "has no value", "ward", None),
        ({"ward": float("nan")}, "is nan", "ward", None),
        ({"ward": "z" * 5000}, "zz...", "ward", None),
    ],
)
def test_a_wrong_row_is_refused_in_one_sentence(
    change: dict[str, Any], sentence: str, field: str, choices: list[str] | None
) -> None:
    row = {key: value for key, value in {**ROW, **change}.items() if value is not ...}
    with pytest.raises(InvalidInputError) as caught:
        validate_row(row, SIGNATURE)
    assert sentence in caught.value.message
    assert len(caught.value.message) < 300
    assert caught.value.field == field
    if choices is not None:
        assert caught.value.choices == choices


JSON = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
STATISTICS = Statistics(
    rows=1,
    sites=1,
    columns=[
        ColumnStatistics(name=column.name, count=1, missing=0) for column in SIGNATURE.columns
    ],
)


@given(
    st.dictionaries(st.sampled_from([*ROW, "other"]), JSON | st.lists(JSON, max_size=2), max_size=6)
)
def test_any_row_is_refused_or_can_be_encoded(change: dict[str, Any]) -> None:
    try:
        row = validate_row({**ROW, **change}, SIGNATURE)
        # What is far from anything a network can compute with is refused here, by its name.
        encoded = TableEncoder(SIGNATURE, STATISTICS).encode_rows([row])
    except InvalidInputError as error:
        json.dumps(error.to_problem())
        return
    assert np.isfinite(encoded).all()


def test_a_number_that_no_network_can_compute_with_is_refused_by_its_name() -> None:
    row = validate_row({**ROW, "mean radius": 1.0000000000000002e100}, SIGNATURE)
    with pytest.raises(InvalidInputError, match=r"'mean radius' is 1e.100, too far"):
        TableEncoder(SIGNATURE, STATISTICS).encode_rows([row])


NESTED = Signature(
    columns=[
        Column(name="amount", kind="numeric"),
        Column(name="user.age", kind="numeric"),
        Column(name="user.home.town", kind="categorical", categories=["x", "y"]),
    ],
    target="fraud",
    classes=["no", "yes"],
    positive_class="yes",
)


def test_nested_objects_are_columns_with_dots_in_their_names() -> None:
    nested = {"user": {"home": {"town": "y"}, "age": 71}, "amount": 2.5}
    found = validate_row(nested, NESTED)
    assert found == {"amount": 2.5, "user.age": 71, "user.home.town": "y"}
    assert list(found) == [column.name for column in NESTED.columns]
    assert validate_row({**found}, NESTED) == found


@pytest.mark.parametrize(
    ("user", "sentence"),
    [
        ({"age": 1, "home": {}}, "'user.home' is an empty object; .* 'user.home.town'"),
        ({"age": {"years": 1}, "home": {"town": "x"}}, "'user.age' is {'years': 1}, of type dict"),
        ({"age": 1, "home": {"town": "x", "street": "s"}}, "user.home.street"),
        ({"age": 1, "home.town": "x", "home": {"town": "x"}}, "'user.home.town' comes twice"),
    ],
)
def test_a_wrong_nested_value_is_named_by_its_path(user: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        validate_row({"amount": 1.0, "user": user}, NESTED)


def test_a_row_nested_without_end_is_refused() -> None:
    deep: dict[str, Any] = {"a": 1}
    for _ in range(2_000):
        deep = {"a": deep}
    with pytest.raises(InvalidInputError, match="nested deeper than 10 levels"):
        validate_row({"amount": 1.0, "user": deep}, NESTED)
