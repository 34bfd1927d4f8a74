"""JSON in a cell is read exactly, or refused at its place."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.magics.json_cell import rows_of_cell

SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text() | st.floats(-1, 1)
ROWS = st.dictionaries(st.text(), SCALARS | st.lists(SCALARS), min_size=1)


@given(ROWS | st.lists(ROWS, min_size=1), st.sampled_from([None, 0, 2]))
def test_every_row_comes_back_as_it_was_written(value, indent):
    assert rows_of_cell(json.dumps(value, indent=indent)) == value


@pytest.mark.parametrize(
    ("cell", "line", "column", "finding"),
    [
        ('{"a": 1,\n "b" 2}\n', 3, 6, "a colon is missing before this"),
        ('{"a": 1\n "b": 2}\n', 3, 2, "a comma is missing before this"),
        ('{"a": 1,}\n', 2, 8, "there is a comma after the last entry"),
        ('{"a": [1, 2,\n]}\n', 2, 12, "there is a comma after the last entry"),
        ("{'a': 1}\n", 2, 2, "strings take double quotes"),
        ("{a: 1}\n", 2, 2, "texts and column names take double quotes"),
        ('{"a": True}\n', 2, 7, "JSON writes true, false and null"),
        ('{"a": 1 # one\n}\n', 2, 9, "JSON has no comments"),
        ('{"a": 1\n', 2, 8, "the JSON is not finished"),
        ('{"a": "x\n', 2, 9, "the JSON is not finished"),
        ('{"a": 1}\n{"a": 2}\n', 3, 1, "the JSON ends before this"),
        ('{"a": 1,\n "b": {"c": 1, "c": 2}}\n', 3, 16, "'c' is given twice"),
        ('[{"a": 1}, {"b": 1, "b": 2}]\n', 2, 21, "'b' is given twice"),
        ('{"a": "NaN", "b": NaN}\n', 2, 19, "NaN is no number"),
        ('{"a": -Infinity}\n', 2, 7, "-Infinity is no number"),
        ("\n 17\n", 3, 2, "a row is an object"),
        ("[1]\n", 2, 1, "every entry of the list is a row"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place_the_line_and_a_caret(cell, line, column, finding):
    with pytest.raises(InvalidInputError) as caught:
        rows_of_cell(cell)
    sentence, shown, caret = caught.value.message.split("\n")
    assert f"line {line}, column {column} of the cell: {finding}" in sentence
    assert shown[2:] == cell.split("\n")[line - 2]
    assert caret.index("^") == column - 1 + 2


def test_the_same_name_in_two_rows_is_no_repetition():
    assert rows_of_cell('[{"a": {"a": 1}}, {"a": 2}]') == [{"a": {"a": 1}}, {"a": 2}]


def test_the_caret_stays_under_the_place_in_a_very_long_line():
    row = ", ".join(f'"column {n}": {n}' for n in range(200))
    broken = "{" + row.replace('"column 150":', '"column 150"') + "}"
    with pytest.raises(InvalidInputError) as caught:
        rows_of_cell(broken)
    _, shown, caret = caught.value.message.split("\n")
    assert len(shown) <= 100
    assert shown[: caret.index("^")].endswith('"column 150" ')


@pytest.mark.parametrize("cell", ["  \n", "{}", "[]"])
def test_an_empty_cell_says_what_goes_into_it(cell):
    with pytest.raises(InvalidInputError, match="row"):
        rows_of_cell(cell)
