from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.preprocessing import (
    encoded_width,
    fingerprint,
    infer_signature,
    target_codes,
)
from truststram_lab.schemas.tables import Column

N = 12
TARGET = ["no", "yes"] * (N // 2)


def column_of(values: object) -> Column:
    frame = pd.DataFrame({"x": values, "y": TARGET})
    (column,) = infer_signature(frame, "y").columns
    return column


@pytest.mark.parametrize(
    ("values", "kind", "nullable"),
    [
        (np.arange(N), "numeric", False),
        (np.arange(N, dtype=np.uint8), "numeric", False),
        (np.arange(N, dtype=np.float32), "numeric", False),
        ([1.0, np.nan] * (N // 2), "numeric", True),
        (pd.array([1, pd.NA] * (N // 2), dtype="Int64"), "numeric", True),
        (pd.array([1, 2] * (N // 2), dtype="Int64"), "numeric", False),
        (pd.array([1.5, pd.NA] * (N // 2), dtype="Float64"), "numeric", True),
        (pd.Series([1, 2.5, None] * (N // 3), dtype=object), "numeric", True),
        ([True, False] * (N // 2), "boolean", False),
        (pd.array([True, pd.NA] * (N // 2), dtype="boolean"), "boolean", True),
        (pd.Series([True, None] * (N // 2), dtype=object), "boolean", True),
        (["a", "b"] * (N // 2), "categorical", False),
        (["a", None] * (N // 2), "categorical", True),
        (pd.Series(["a", np.nan] * (N // 2), dtype=object), "categorical", True),
        (pd.Series(["a", pd.NA] * (N // 2), dtype="string"), "categorical", True),
        (pd.Categorical(["a", "b"] * (N // 2)), "categorical", False),
        (pd.Categorical(["a", None] * (N // 2), categories=["a", "b"]), "categorical", True),
        (pd.Categorical([1, 2] * (N // 2)), "categorical", False),
        (pd.cut(np.arange(N), 3), "categorical", False),
    ],
)
def test_a_column_is_what_its_values_are(values: object, kind: str, nullable: bool) -> None:
    column = column_of(values)
    assert (column.kind, column.nullable) == (kind, nullable)


def test_a_float64_column_with_a_computed_nan_is_nullable() -> None:
    numbers = pd.Series([0.0, 1.0] * (N // 2), dtype="Float64")
    assert column_of(numbers / numbers).nullable


def test_categories_are_sorted_texts_that_occur() -> None:
    values = pd.Categorical(["b", "a"] * (N // 2), categories=["c", "b", "a"])
    assert column_of(values).categories == ["a", "b"]
    assert column_of(pd.Categorical([10, 9] * (N // 2))).categories == ["10", "9"]


def test_columns_keep_their_order_and_leave_out_the_target() -> None:
    frame = pd.DataFrame({"b": range(N), "y": TARGET, "a": ["u", "v"] * (N // 2)})
    signature = infer_signature(frame, "y")
    assert [column.name for column in signature.columns] == ["b", "a"]
    assert signature.target == "y"
    assert encoded_width(signature) == 3


@pytest.mark.parametrize(
    ("labels", "classes", "positive"),
    [
        (["benign", "malignant"], ["benign", "malignant"], "malignant"),
        ([0, 1], ["0", "1"], "1"),
        ([1.0, 0.0], ["0", "1"], "1"),
        ([True, False], ["False", "True"], "True"),
        ([10, 9, 1], ["1", "9", "10"], None),
        (["10", "9", "1"], ["1", "9", "10"], None),
        ([-1, 1], ["-1", "1"], "1"),
        (["c", "a", "b"], ["a", "b", "c"], None),
        (["--1", "1"], ["--1", "1"], "1"),
    ],
)
@pytest.mark.parametrize("dtype", [None, object, "category"])
def test_classes_are_sorted_texts_and_the_last_of_two_is_positive(
    labels: list[object], classes: list[str], positive: str | None, dtype: object
) -> None:
    target = pd.Series(labels * (N // len(labels)), dtype=dtype)
    signature = infer_signature(pd.DataFrame({"x": range(len(target)), "y": target}), "y")
    assert signature.classes == classes
    assert signature.positive_class == positive


@pytest.mark.parametrize(
    ("labels", "positive"), [(["b", "m"], "b"), ([0, 1], 0), ([False, True], False), ([0, 1], "0")]
)
def test_the_chosen_positive_class_stands_last_and_has_code_one(
    labels: list[object], positive: object
) -> None:
    frame = pd.DataFrame({"x": range(N), "y": labels * (N // 2)})
    signature = infer_signature(frame, "y", positive)
    assert signature.positive_class == signature.classes[1] == str(positive)
    assert target_codes(frame, signature).tolist() == [1, 0] * (N // 2)


def test_codes_are_places_of_the_classes_in_any_type() -> None:
    frame = pd.DataFrame({"x": range(6), "y": [3, 1, 2, 3, 1, 2]})
    signature = infer_signature(frame, "y")
    for kind in ("int8", "float64", "Int64", "str", "category", object):
        codes = target_codes(frame.astype({"y": kind}), signature)
        assert codes.dtype == np.int64
        assert codes.tolist() == [2, 0, 1, 2, 0, 1]
    assert target_codes(frame.iloc[:0], signature).tolist() == []


def frame_with(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"x": np.arange(N, dtype=float), "y": TARGET, **columns})


def target_of(values: Any) -> pd.DataFrame:
    return pd.DataFrame({"x": range(len(values)), "y": values})


TWICE = pd.DataFrame(np.zeros((2, 3)), columns=["x", "x", "y"])
DAY = datetime.date(2020, 1, 1)


@pytest.mark.parametrize(
    ("frame", "target", "sentence"),
    [
        (frame_with(), "z", "There is no column 'z' to predict"),
        (frame_with(diagnosis=1), "diagnosi", "did you mean 'diagnosis'"),
        (frame_with()[["y"]], "y", "'y' is the only column"),
        (frame_with().iloc[:0], "y", "has no rows"),
        (TWICE, "y", "Column 'x' is there 2 times; keep one"),
        (pd.DataFrame({0: [1, 2], "y": [0, 1]}), "y", r"name 0 is of type int.*\.map\(str\)"),
        (target_of(["a", None, "b"]), "y", "missing in 1 of 3 rows; drop them first"),
        (target_of([1.0, np.nan, 0.0]), "y", r"df.dropna\(subset=\['y'\]\)"),
        (target_of(["a"] * 5), "y", "'y' is 'a' in all 5 rows"),
        (target_of([0.5, 1.0]), "y", "fractional values such as 0.5.*regression target.*qcut"),
        (target_of(range(60)), "y", "60 different numbers in 60 rows.*regression target"),
        (target_of(range(20)), "y", "regression target"),
        (target_of([1.0, np.inf, 0.0]), "y", "'y' has infinite values"),
        (target_of(pd.date_range("2020", periods=4)), "y", "datetime64.*regression target"),
        (target_of([f"t{i}" for i in range(120)]), "y", "120 different labels; up to 100"),
        (target_of(pd.Series([1, "a", 2], dtype=object)), "y", "'y' has 1 of type int in row 0"),
        (target_of(pd.Series([[1], [2]], dtype=object)), "y", "of type list in row 0"),
        (frame_with(x=[np.inf] + [1.0] * (N - 1)), "y", "'x' in row 0 is infinite"),
        (frame_with(when=pd.date_range("2020", periods=N)), "y", r"'when' holds points.*dt\.year"),
        (frame_with(when=pd.date_range("2020", periods=N, tz="UTC")), "y", "points in time"),
        (frame_with(t=pd.to_timedelta(range(N), "s")), "y", r"'t' holds durations"),
        (frame_with(day=[DAY] * N), "y", "'day' has .*type date in row 0"),
        (frame_with(z=[1j] * N), "y", "'z' has complex128"),
        (frame_with(d=[decimal.Decimal(1)] * N), "y", "of type Decimal"),
        (frame_with(mixed=[1, "a"] * (N // 2)), "y", "'mixed' has 1 of type int in row 0"),
        (frame_with(mixed=["a", 1] * (N // 2)), "y", "'mixed' has 1 of type int in row 1"),
        (frame_with(mixed=[True, 2] * (N // 2)), "y", "only numbers, only booleans or only texts"),
        (frame_with(none=[None] * N), "y", "'none' has no value in any row; drop it"),
        (frame_with(none=[np.nan] * N), "y", r"df.drop\(columns=\['none'\]\)"),
    ],
)
def test_an_unusable_table_is_refused_with_the_way_out(
    frame: pd.DataFrame, target: str, sentence: str
) -> None:
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        infer_signature(frame, target)
    assert "\n" not in caught.value.message
    assert caught.value.message.endswith((".", "?"))


def test_a_column_of_identifiers_is_refused_with_the_line_that_drops_it() -> None:
    frame = pd.DataFrame({"id": [f"p{i}" for i in range(200)], "y": [0, 1] * 100})
    with pytest.raises(InvalidInputError, match="looks like an identifier") as caught:
        infer_signature(frame, "y")
    assert "df.drop(columns=['id'])" in caught.value.message
    assert caught.value.field == "id"


@pytest.mark.parametrize(
    ("labels", "positive", "sentence"),
    [
        (["a", "b"], "c", "'c' is no class of 'y'; the positive class is 'a' or 'b'"),
        (["a", "b", "c"], "a", "'y' has 3 classes, so none of them is the positive one"),
    ],
)
def test_a_positive_class_that_cannot_be_is_refused(
    labels: list[str], positive: str, sentence: str
) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        infer_signature(target_of(labels * 4), "y", positive)


def test_an_unknown_label_is_refused_with_the_nearest() -> None:
    signature = infer_signature(target_of(["benign", "malignant"] * 3), "y")
    with pytest.raises(InvalidInputError, match="'y' is 'malignent'") as caught:
        target_codes(target_of(["benign", "malignent"]), signature)
    assert caught.value.choices == ["malignant"]
    with pytest.raises(InvalidInputError, match="missing in 1 of 2 rows"):
        target_codes(target_of(["benign", None]), signature)


def test_codes_are_refused_when_the_positive_class_is_not_last() -> None:
    frame = target_of(["a", "b"] * 3)
    signature = infer_signature(frame, "y").model_copy(update={"positive_class": "a"})
    with pytest.raises(InvalidInputError, match="list it last to train"):
        target_codes(frame, signature)


FRAMES = st.builds(
    lambda ints, floats, texts: pd.DataFrame({"i": ints, "f": floats, "t": texts}),
    st.lists(st.integers(-(2**62), 2**62), min_size=3, max_size=3),
    st.lists(st.floats() | st.none(), min_size=3, max_size=3),
    st.lists(st.text(st.characters(codec="utf-8")) | st.none(), min_size=3, max_size=3),
)


@given(FRAMES)
def test_equal_frames_have_equal_fingerprints(frame: pd.DataFrame) -> None:
    again = frame.copy()
    again.index = pd.Index([7, 8, 9])
    assert fingerprint(again) == fingerprint(frame)
    assert len(fingerprint(frame)) == 64


@given(FRAMES, st.integers(0, 2))
def test_any_change_changes_the_fingerprint(frame: pd.DataFrame, row: int) -> None:
    for name, other in (("i", 5), ("f", 1.25), ("t", "other")):
        changed = frame.copy()
        changed[name] = changed[name].astype(object)
        if changed[name].iloc[row] == other:
            continue
        changed.loc[row, name] = other
        changed[name] = changed[name].astype(frame[name].dtype)
        assert fingerprint(changed) != fingerprint(frame)
    assert fingerprint(frame.rename(columns={"i": "j"})) != fingerprint(frame)
    assert fingerprint(frame[["f", "i", "t"]]) != fingerprint(frame)
    assert fingerprint(frame.iloc[:2]) != fingerprint(frame)


def test_neighbouring_columns_do_not_run_into_each_other() -> None:
    one = pd.DataFrame({"a": ["x", "y"], "b": ["z", "z"]})
    other = pd.DataFrame({"a": ["x", "yz"], "b": ["z", ""]})
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "Float64", "category", "string", object])
def test_a_missing_value_is_part_of_the_fingerprint(dtype: str) -> None:
    full = pd.DataFrame({"a": pd.Series([0, 1, 0]).astype(dtype)})
    holed = full.copy()
    holed.loc[2, "a"] = None
    holed["a"] = holed["a"].astype(dtype)
    assert fingerprint(full) != fingerprint(holed)
    assert fingerprint(full) == fingerprint(full.copy())


def test_wide_integers_count_to_the_last_digit() -> None:
    one, other = (pd.DataFrame({"a": [2**60 + k]}) for k in (0, 1))
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(pd.DataFrame({"a": np.array([2**64 - 1], np.uint64)}))
