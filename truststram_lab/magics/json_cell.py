"""The JSON in a cell: read, or refused with its place, line and a caret under it."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from truststram_lab.exceptions import InvalidInputError

__all__ = ["rows_of_cell"]

_TOKEN = re.compile(
    r'(?P<string>"(?:[^"\\]|\\.)*")(?P<key>\s*:)?|(?P<mark>[{}\[\]])|(?P<constant>NaN|-?Infinity)'
)

#: What people write who think in Python: the pattern at the place of the error -> the advice.
_ADVICE = (
    (re.compile(r"'"), "strings take double quotes"),
    (re.compile(r"True\b|False\b|None\b"), "JSON writes true, false and null"),
    (re.compile(r"#|//"), "JSON has no comments"),
    (re.compile(r"[A-Za-z_]"), "texts and column names take double quotes"),
)


def rows_of_cell(cell: str) -> dict[str, Any] | list[dict[str, Any]]:
    """The row, or the rows, that a cell's JSON holds.

    Raises:
        InvalidInputError: one sentence with line and column, counted as the editor does
            with the command in line 1; then the line and a caret under the place.
    """
    if not cell.strip():
        raise InvalidInputError(
            "The cell holds no JSON; write the row below the command: "
            '{"column": value, ...}, or a list of such objects.'
        )
    try:
        found = json.loads(cell)
    except json.JSONDecodeError as error:
        place, finding = _explain(cell, error)
        raise _pointing(cell, place, finding) from None
    _refuse_what_json_allows(cell)
    for row in found if isinstance(found, list) else [found]:
        if not isinstance(row, dict):
            place = len(cell) - len(cell.lstrip())
            subject = "a row" if row is found else "every entry of the list is a row, which"
            raise _pointing(cell, place, f'{subject} is an object such as {{"column": value}}')
    if not found:
        raise InvalidInputError(
            "The JSON in the cell is empty; a row names every column of the model."
        )
    return cast("dict[str, Any] | list[dict[str, Any]]", found)  # checked row by row above


def _explain(text: str, error: json.JSONDecodeError) -> tuple[int, str]:
    """The place to point at, and what is wrong there."""
    rest = text[error.pos :]
    before = text[: error.pos].rstrip()
    if before.endswith(",") and rest[:1] in ("}", "]"):
        # Older and newer Pythons point at different sides of it.
        return len(before) - 1, "there is a comma after the last entry"
    if rest[:1] == "," and rest[1:].lstrip()[:1] in ("}", "]"):
        return error.pos, "there is a comma after the last entry"
    if error.msg.startswith("Extra data"):
        return error.pos, "the JSON ends before this; several rows go into a list [...]"
    for pattern, advice in _ADVICE:
        if pattern.match(rest):
            return error.pos, advice
    if not rest.strip():
        return len(text.rstrip()), "the JSON is not finished; a bracket or quote is not closed"
    if "delimiter" in error.msg:
        missing = "comma" if "','" in error.msg else "colon"
        return error.pos, f"a {missing} is missing before this"
    return error.pos, error.msg[0].lower() + error.msg[1:]


def _refuse_what_json_allows(text: str) -> None:
    """Repeated names, of which Python would keep the last, and numbers that are none."""
    open_objects: list[set[str] | None] = []
    for token in _TOKEN.finditer(text):
        if token["constant"]:
            raise _pointing(
                text,
                token.start(),
                f"{token['constant']} is no number; write null if it is missing",
            )
        if token["mark"] in ("{", "["):
            open_objects.append(set() if token["mark"] == "{" else None)
        elif token["mark"]:
            open_objects.pop()
        elif token["key"]:
            name = json.loads(token["string"])
            names = open_objects[-1]
            assert names is not None  # a key stands in an object: the text has been parsed
            if name in names:
                raise _pointing(text, token.start(), f"{name!r} is given twice")
            names.add(name)


def _pointing(text: str, place: int, finding: str) -> InvalidInputError:
    lines = text.split("\n")
    row = text.count("\n", 0, place)
    column = place - (text.rfind("\n", 0, place) + 1)
    line, shown_column = _window(lines[row], column)
    return InvalidInputError(
        f"The JSON cannot be read at line {row + 2}, column {column + 1} of the cell: {finding}.\n"
        f"  {line}\n"
        f"  {' ' * shown_column}^"
    )


def _window(line: str, column: int, width: int = 96) -> tuple[str, int]:
    """The part of a long line around ``column``, and where ``column`` is in it."""
    start = max(0, min(column - width // 2, len(line) - width))
    return line[start : start + width].replace("\t", " "), column - start
