"""Requests as a worker reads them, and the answers that it writes: JSON text both ways.

The platform hands on what it was sent, and sends on what comes back, so that every byte is read
and written once. What is clean takes a short way by columns; everything else goes value by
value, which finds the sentence for what is wrong.
"""

from __future__ import annotations

import itertools
import json
import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError
from pydantic_core import from_json

from truststram_lab.exceptions import InvalidInputError, PlatformError
from truststram_lab.preprocessing.rows import validate_row
from truststram_lab.schemas.serving import Explanation, PredictRequest
from truststram_lab.schemas.tables import Signature
from truststram_lab.server import strict_json

from .jobs import PREDICT_ROWS, check_request

__all__ = ["Asked", "RowReader", "Writer", "read"]

_KEYS = {"data", "explain", "explain_class"}
_NUMBERS = {float, int, type(None)}
_FLAGS = {bool, type(None)}


@dataclass(frozen=True)
class Asked:
    """A request that was read: ``matrix`` as ``RowReader`` says, and rows where they explain."""

    matrix: np.ndarray
    rows: list[dict[str, Any]] | None = None
    explain_class: str | None = None


class RowReader:
    """Rows into a matrix (rows, columns) in the signature's order.

    Numbers and booleans are themselves, NaN where missing; a category is its place in the
    column's list, and -1 where missing.
    """

    def __init__(self, signature: Signature) -> None:
        columns = signature.columns
        self._width = len(columns)
        self._nullable = np.array([column.nullable for column in columns])
        self._groups = [
            (kinds, places, _getter([columns[place].name for place in places]))
            for kinds, places in (
                (_NUMBERS, [k for k, c in enumerate(columns) if c.kind == "numeric"]),
                (_FLAGS, [k for k, c in enumerate(columns) if c.kind == "boolean"]),
            )
            if places
        ]
        self._categorical = [
            (place, operator.itemgetter(column.name), _codes(column.categories, column.nullable))
            for place, column in enumerate(columns)
            if column.kind == "categorical"
        ]

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
        """The matrix; None if something is not as it should be, or is written another way."""
        if any(len(row) != self._width for row in rows):
            return None
        matrix = np.empty((len(rows), self._width))
        try:
            for kinds, places, get in self._groups:
                flat = list(itertools.chain.from_iterable(map(get, rows)))
                if not kinds.issuperset(map(type, flat)):
                    return None
                numbers = np.array(flat, dtype=np.float64).reshape(len(rows), len(places))
                if len(places) == self._width:
                    matrix = numbers
                else:
                    matrix[:, places] = numbers
            for place, get, codes in self._categorical:
                matrix[:, place] = [codes[value] for value in map(get, rows)]
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        if not np.isfinite(matrix).all():
            missing = np.isnan(matrix)
            if (missing & ~self._nullable).any() or np.isinf(matrix).any():
                return None
        return matrix


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return operator.itemgetter(*names)
    # With one name an itemgetter would give the value itself, and no tuple of it.
    return lambda row: (row[names[0]],)


def _codes(categories: Sequence[str], nullable: bool) -> dict[str | None, int]:
    codes: dict[str | None, int] = {name: code for code, name in enumerate(categories)}
    return {**codes, None: -1} if nullable else codes


def read(
    body: bytes, reader: RowReader, signature: Signature, first: int, total: int | None
) -> Asked:
    """What a request's body asks for.

    Args:
        first, total: which rows of a longer request these are.

    Raises:
        InvalidInputError: it does not fit; names the field, and the row of several.
    """
    value = _quickly(body)
    if value is not None and not value.get("explain"):
        data = value["data"]
        matrix = reader([data] if type(data) is dict else data)
        if matrix is not None:
            return Asked(matrix)
    return _carefully(body, reader, signature, first, total)


def _quickly(body: bytes) -> dict[str, Any] | None:
    """The body's value, if it certainly repeats no key and nests nothing; else None."""
    try:
        value = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return None
    if type(value) is not dict or not _KEYS.issuperset(value) or value.get("explain_class"):
        return None
    data, explain = value.get("data"), value.get("explain", False)
    rows = [data] if type(data) is dict else data
    if type(rows) is not list or type(explain) is not bool or not 1 <= len(rows) <= PREDICT_ROWS:
        return None
    if not {dict}.issuperset(map(type, rows)):
        return None
    # Each key is followed by a colon: as many colons as keys leave none for a repeated key,
    # for a nested object, or within a text.
    if body.count(b":") != len(value) + sum(map(len, rows)):
        return None
    return value


def _carefully(
    body: bytes, reader: RowReader, signature: Signature, first: int, total: int | None
) -> Asked:
    value = strict_json.loads(body)
    try:
        request = PredictRequest.model_validate(value)
    except ValidationError as error:
        raise strict_json.validation_problem(error.errors(include_url=False)) from error
    rows = [request.data] if isinstance(request.data, dict) else request.data
    check_request(len(rows), request)
    checked = [
        _validated(row, signature, number, total or len(rows))
        for number, row in enumerate(rows, start=first)
    ]
    matrix = reader(checked)
    if matrix is None:
        raise PlatformError("The rows were checked and cannot be read all the same.")
    return Asked(matrix, checked if request.explain else None, request.explain_class)


def _validated(
    row: dict[str, Any], signature: Signature, number: int, total: int
) -> dict[str, Any]:
    try:
        return dict(validate_row(row, signature))
    except InvalidInputError as error:
        if total == 1:
            raise
        raise InvalidInputError(
            f"Row {number} of {total}: {error.message}", field=error.field, choices=error.choices
        ) from error


class Writer:
    """Writes the answers of one version.

    Args:
        label: ``name:version``.
    """

    def __init__(self, label: str, signature: Signature) -> None:
        model, _, version = label.rpartition(":")
        self._plain = [json.dumps(name, ensure_ascii=False) for name in signature.classes]
        self._positive = None
        if signature.positive_class is not None:
            self._positive = signature.classes.index(signature.positive_class)
        head = f'{{"prediction_id":"%s","model":{_text(model)},"version":{version},"label":%s,'
        tail = '"explanation":%s,"latency_ms":%s}'
        likely = ",".join(f"{_text(name)}:%r" for name in signature.classes)
        told = '"confidence":%r,"confidence_class":%s,"value":null,'
        self._row = f'{head}"probabilities":{{{likely}}},{told}{tail}'
        nothing = '"probabilities":{},"confidence":null,"confidence_class":null,"value":%r,'
        self._value = f"{head}{nothing}{tail}"

    def __call__(
        self,
        outputs: np.ndarray,
        id: str,
        started_s: float,
        *,
        first: int = 1,
        many: bool,
        explanations: Sequence[Explanation] | None = None,
    ) -> bytes:
        """The answer to one request.

        Args:
            outputs: probabilities (rows, classes), or values (rows, 1).
            many: number the rows' ids.
        """
        took_ms = f"{(time.monotonic() - started_s) * 1000.0:.3f}"
        ids = [f"{id}.{first + place}" for place in range(len(outputs))] if many else [id]
        whys = ["null"] * len(outputs)
        if explanations is not None:
            whys = [each.model_dump_json() for each in explanations]
        write = self._values if not self._plain else self._classes
        return f'{{"predictions":[{",".join(write(outputs, ids, whys, took_ms))}]}}'.encode()

    def _classes(
        self, outputs: np.ndarray, ids: list[str], whys: list[str], took_ms: str
    ) -> Iterator[str]:
        best = outputs.argmax(axis=1).tolist()
        for id, why, label, values in zip(ids, whys, best, outputs.tolist(), strict=True):
            told = label if self._positive is None else self._positive
            name, told_name = self._plain[label], self._plain[told]
            yield self._row % (id, name, *values, values[told], told_name, why, took_ms)

    def _values(
        self, outputs: np.ndarray, ids: list[str], whys: list[str], took_ms: str
    ) -> Iterator[str]:
        for id, why, value in zip(ids, whys, outputs[:, 0].tolist(), strict=True):
            yield self._value % (id, f'"{value!r}"', value, why, took_ms)


def _text(name: str) -> str:
    """A name as a part of a template, where a percent sign is two."""
    return json.dumps(name, ensure_ascii=False).replace("%", "%%")
