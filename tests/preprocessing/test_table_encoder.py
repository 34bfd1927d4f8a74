from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.statistics import local_moments, merge_moments
from truststram_lab.preprocessing import TableEncoder, encoded_width, infer_signature
from truststram_lab.schemas.tables import ColumnStatistics, Signature, Statistics

MISSING = st.sampled_from([None, float("nan"), pd.NA])
ROWS = st.integers(4, 25).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "number": st.lists(st.floats(-1e6, 1e6), min_size=n, max_size=n),
            "holed": st.lists(st.floats(-1e6, 1e6) | MISSING, min_size=n, max_size=n),
            "whole": st.lists(st.integers(-(2**60), 2**60), min_size=n, max_size=n),
            "flag": st.lists(st.booleans(), min_size=n, max_size=n),
            "maybe": st.lists(st.booleans() | st.none(), min_size=n, max_size=n),
            "ward": st.lists(st.sampled_from("abc"), min_size=n, max_size=n),
            "town": st.lists(st.sampled_from(["x", "ü", ""]) | MISSING, min_size=n, max_size=n),
            "y": st.just([0, 1] * (n // 2) + [1] * (n % 2)),
        }
    )
)


def frame_of(rows: dict[str, list[object]]) -> pd.DataFrame:
    objects = {name: pd.Series(values, dtype=object) for name, values in rows.items()}
    frame = pd.DataFrame(objects).infer_objects()
    # A column without any value is refused; one is enough.
    for name in ("holed", "maybe", "town"):
        if frame[name].isna().all():
            frame[name] = pd.Series([1.0] * len(frame)) if name == "holed" else "z"
    return frame


def encoder_of(frame: pd.DataFrame) -> TableEncoder:
    signature = infer_signature(
        frame.assign(y=[0, 1] * (len(frame) // 2) + [1] * (len(frame) % 2)), "y"
    )
    return TableEncoder(signature, merge_moments([local_moments(frame, signature)], signature))


@given(ROWS)
def test_rows_and_frames_are_encoded_to_the_same_bits(rows: dict[str, list[object]]) -> None:
    frame = frame_of(rows).drop(columns=["y"])
    encoder = encoder_of(frame)
    by_frame = encoder.encode_frame(frame)
    by_rows = encoder.encode_rows(frame.to_dict("records"))
    assert by_frame.tobytes() == by_rows.tobytes()
    assert by_frame.shape == (len(frame), encoder.width)
    assert np.isfinite(by_frame).all()


@given(ROWS)
def test_the_baseline_is_the_mean_of_the_encoded_rows(rows: dict[str, list[object]]) -> None:
    frame = frame_of(rows).drop(columns=["y"])
    encoder = encoder_of(frame)
    mean = encoder.encode_frame(frame).mean(axis=0)
    np.testing.assert_allclose(encoder.baseline(), mean, atol=1e-9)


@given(ROWS)
def test_groups_cover_every_encoded_number_once(rows: dict[str, list[object]]) -> None:
    frame = frame_of(rows).drop(columns=["y"])
    encoder = encoder_of(frame)
    assert [name for name, _ in encoder.groups] == list(frame.columns)
    places = [place for _, part in encoder.groups for place in range(part.start, part.stop)]
    assert places == list(range(encoder.width))
    assert encoder.width == encoded_width(encoder.signature)


def small() -> tuple[pd.DataFrame, TableEncoder]:
    frame = pd.DataFrame(
        {
            "age": [10.0, 30.0, None, 20.0],
            "ward": ["a", "b", "b", None],
            "ok": [True, False, True, True],
        }
    )
    return frame, encoder_of(frame)


def test_the_encoding_is_the_documented_one() -> None:
    frame, encoder = small()
    std = np.sqrt(200 / 3)
    ok = np.sqrt(3) / 4
    np.testing.assert_allclose(
        encoder.encode_frame(frame),
        [
            # age, age missing, ward a, ward b, ward missing, ok
            [-10 / std, 0, 1, 0, 0, 0.25 / ok],
            [10 / std, 0, 0, 1, 0, -0.75 / ok],
            [0, 1, 0, 1, 0, 0.25 / ok],
            [0, 0, 0, 0, 1, 0.25 / ok],
        ],
        atol=1e-12,
    )
    assert encoder.groups == [("age", slice(0, 2)), ("ward", slice(2, 5)), ("ok", slice(5, 6))]
    np.testing.assert_allclose(encoder.baseline(), [0, 0.25, 0.25, 0.5, 0.25, 0])


@given(st.floats(-1e9, 1e9).filter(lambda x: abs(x) > 1e-9 or x == 0), st.integers(2, 40))
def test_a_constant_column_is_only_centred(value: float, rows: int) -> None:
    frame = pd.DataFrame({"c": [value] * rows})
    encoder = encoder_of(frame)
    assert np.abs(encoder.encode_frame(frame)).max() <= 1e-6
    assert encoder.encode_rows([{"c": value + 1000.0}])[0, 0] == pytest.approx(1000.0)


def test_a_small_variation_of_a_large_number_is_still_scaled() -> None:
    frame = pd.DataFrame({"t": 1.6e9 + np.arange(10.0)})
    assert encoder_of(frame).encode_frame(frame).std() == pytest.approx(1.0)


def test_the_order_of_columns_does_not_matter() -> None:
    frame, encoder = small()
    turned = frame[["ok", "ward", "age"]]
    assert encoder.encode_frame(turned).tobytes() == encoder.encode_frame(frame).tobytes()


@pytest.mark.parametrize("dtype", ["category", "string", object])
def test_the_type_that_holds_a_category_does_not_matter(dtype: str) -> None:
    frame, encoder = small()
    other = frame.astype({"ward": dtype})
    assert encoder.encode_frame(other).tobytes() == encoder.encode_frame(frame).tobytes()


def test_no_rows_are_encoded_to_no_rows() -> None:
    frame, encoder = small()
    assert encoder.encode_rows([]).shape == (0, 6)
    assert encoder.encode_frame(frame.iloc[:0]).shape == (0, 6)


def test_statistics_survive_the_wire_to_the_last_bit() -> None:
    frame, encoder = small()
    again = TableEncoder(
        Signature.model_validate_json(encoder.signature.model_dump_json()),
        Statistics.model_validate_json(encoder.statistics.model_dump_json()),
    )
    assert again.encode_frame(frame).tobytes() == encoder.encode_frame(frame).tobytes()


def test_a_column_no_site_had_a_value_in_is_left_as_it_is() -> None:
    _, encoder = small()
    first = ColumnStatistics(name="age", count=0, missing=4)
    statistics = encoder.statistics.model_copy(
        update={"columns": [first, *encoder.statistics.columns[1:]]}
    )
    row = {"age": 7.0, "ward": "a", "ok": True}
    assert TableEncoder(encoder.signature, statistics).encode_rows([row])[0, 0] == 7.0


def test_statistics_of_other_columns_are_refused() -> None:
    _, encoder = small()
    fewer = encoder.statistics.model_copy(update={"columns": encoder.statistics.columns[1:]})
    with pytest.raises(InvalidInputError, match="statistics are of 2 columns"):
        TableEncoder(encoder.signature, fewer)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"aeg": 1}, "'aeg' is not a column; did you mean 'age'"),
        ({"y": 1}, "'y' is what the model predicts"),
        ({"ok": None}, "'ok' .* is missing, which the model has not seen"),
        ({"ward": "c"}, "'ward' in row 0 is 'c', which is no category"),
        ({"age": np.inf}, "'age' in row 0 is infinite"),
        ({"age": 1e300}, "'age' is 1e.300, too far from its mean of 20"),
        ({"age": "old"}, "'age' is 'old' in row 0; a number is needed"),
    ],
)
def test_frames_and_rows_are_refused_alike(change: dict[str, object], sentence: str) -> None:
    frame, encoder = small()
    changed = frame.iloc[:1].assign(**change)
    with pytest.raises(InvalidInputError, match=sentence):
        encoder.encode_frame(changed)
    with pytest.raises(InvalidInputError, match=sentence):
        encoder.encode_rows([{"age": 1.0, "ward": "a", "ok": True, **change}])
