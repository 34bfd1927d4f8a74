"""The process that answers predictions, one message at a time (see ``wire``).

It ends when its channel does: a killed platform leaves nothing behind.

==========  ==============================================  =================================
operation   request                                         answer
==========  ==============================================  =================================
load        ``version``: id, label, weights, ...            ``loaded``: its id
predict     ``id``, ``questions``: id, time, first, total;  ``answers``: status and rows;
            a body each                                     a body each; or ``unknown``: the
                                                            id, which is to be loaded first
convert     ``version``, of the runtime ``sklearn``         ``runtime``, ``reason``; the
                                                            converted file, if it is served
forget      ``id``                                          ``forgotten``: the id
inspect     nothing                                         ``modules``, ``versions``
==========  ==============================================  =================================

A header may be ``error``, a problem, instead. ``traces`` are for the platform's log.
"""

from __future__ import annotations

import socket
import sys
import traceback
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from truststram_lab.exceptions import PlatformError, TrustStramException
from truststram_lab.schemas.serving import Explanation
from truststram_lab.schemas.tables import Signature

from . import wire
from .answers import Asked, RowReader, Writer, read
from .jobs import problem_body

__all__ = ["KEPT_VERSIONS", "Runtime", "Served", "Worker", "serve"]

#: Versions kept in memory; the one unused for longest goes first.
KEPT_VERSIONS = 32

Reply = tuple[dict[str, Any], list[bytes]]
#: status, rows, body
_Answer = tuple[int, int, bytes]


class Served(Protocol):
    """A version that computes; ``matrix`` is as ``RowReader`` makes it."""

    signature: Signature

    def compute(self, matrix: np.ndarray) -> np.ndarray: ...
    def explain(
        self, matrix: np.ndarray, rows: list[dict[str, Any]], label: str | None
    ) -> list[Explanation]: ...


class Runtime(Protocol):
    """A module that opens versions."""

    def open_version(self, described: dict[str, Any]) -> Served: ...


def serve(channel: socket.socket, runtime: Runtime) -> None:
    """Answer until the platform closes its end."""
    worker = Worker(runtime)
    try:
        wire.send(channel, {"ready": True})
        while True:
            header, bodies = wire.receive(channel)
            wire.send(channel, *worker.reply(header, bodies))
    except (EOFError, OSError):
        return


@dataclass(frozen=True)
class _Loaded:
    served: Served
    reader: RowReader
    writer: Writer


class Worker:
    """The versions in memory and the answers they give."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._versions: OrderedDict[str, _Loaded] = OrderedDict()

    def reply(self, header: dict[str, Any], bodies: Sequence[bytes]) -> Reply:
        """The answer to one message; a failure is an answer too."""
        try:
            match header["op"]:
                case "predict":
                    return self._predict(header, bodies)
                case "load":
                    return self._load(header["version"]), []
                case "convert":
                    return _converted(header["version"])
                case "forget":
                    self._versions.pop(header["id"], None)
                    return {"forgotten": header["id"]}, []
                case _:
                    return {"modules": sorted(sys.modules), "versions": list(self._versions)}, []
        except Exception as error:  # noqa: BLE001 - reported to the platform, which logs it
            told, traces = _failure(error)
            return {"error": told.to_problem(), "traces": traces}, []

    def _load(self, described: dict[str, Any]) -> dict[str, Any]:
        served = self._runtime.open_version(described)
        loaded = _Loaded(
            served, RowReader(served.signature), Writer(described["label"], served.signature)
        )
        self._versions[described["id"]] = loaded
        while len(self._versions) > KEPT_VERSIONS:
            self._versions.popitem(last=False)
        return {"loaded": described["id"]}

    def _predict(self, header: dict[str, Any], bodies: Sequence[bytes]) -> Reply:
        loaded = self._versions.get(header["id"])
        if loaded is None:
            return {"unknown": header["id"]}, []
        self._versions.move_to_end(header["id"])
        traces: list[str] = []
        found = _answered(loaded, header["questions"], bodies, traces)
        told = {"answers": [(status, rows) for status, rows, _ in found], "traces": traces}
        return told, [body for _, _, body in found]


def _converted(described: dict[str, Any]) -> Reply:
    from .native import open_model

    found = open_model(described)
    try:
        from .conversion import NotConvertedError, convert
    except ModuleNotFoundError as error:
        return _stays(f"the package {error.name} is not installed"), []
    try:
        content, told = convert(found)
    except NotConvertedError as error:
        return _stays(str(error)), []
    return {"runtime": "onnx", "reason": told}, [content]


def _stays(reason: str) -> dict[str, Any]:
    return {"runtime": "sklearn", "reason": f"Served by scikit-learn itself: {reason}"}


def _answered(
    loaded: _Loaded, questions: Sequence[Any], bodies: Sequence[bytes], traces: list[str]
) -> list[_Answer]:
    """An answer a question, in order: one pass through the model for all their rows."""
    answers: list[_Answer | None] = [None] * len(bodies)
    asked: dict[int, Asked] = {}
    for place, (question, body) in enumerate(zip(questions, bodies, strict=True)):
        try:
            asked[place] = read(
                body, loaded.reader, loaded.served.signature, question[2], question[3]
            )
        except Exception as error:  # noqa: BLE001 - one bad request must not spoil the others
            answers[place] = _problem(error, traces)
    outputs = _together(loaded.served, list(asked.values()))
    for place, one in asked.items():
        try:
            own = next(outputs) if outputs is not None else _computed(loaded.served, one.matrix)
            answers[place] = _written(loaded, one, own, questions[place])
        except Exception as error:  # noqa: BLE001 - as above
            answers[place] = _problem(error, traces)
    return [answer for answer in answers if answer is not None]


def _together(served: Served, asked: Sequence[Asked]) -> Any:
    """Iterates over each request's outputs; None if they have to be computed one by one."""
    if len(asked) < 2:
        return None
    try:
        outputs = _computed(served, np.concatenate([one.matrix for one in asked]))
    except Exception:  # noqa: BLE001 - whose fault it was is found one by one
        return None
    ends = np.cumsum([len(one.matrix) for one in asked])
    return iter(np.split(outputs, ends[:-1]))


def _computed(served: Served, matrix: np.ndarray) -> np.ndarray:
    outputs = served.compute(matrix)
    if not np.isfinite(outputs).all():
        raise PlatformError("The model answered with a number that is not finite; train again.")
    return outputs


def _written(loaded: _Loaded, asked: Asked, outputs: np.ndarray, question: Any) -> _Answer:
    id, started_s, first, total = question
    explanations = None
    if asked.rows is not None:
        explanations = loaded.served.explain(asked.matrix, asked.rows, asked.explain_class)
    many = (total or len(outputs)) > 1
    body = loaded.writer(outputs, id, started_s, first=first, many=many, explanations=explanations)
    return 200, len(outputs), body


def _problem(error: Exception, traces: list[str]) -> _Answer:
    told, more = _failure(error)
    traces += more
    return told.status, 0, problem_body(told)


def _failure(error: Exception) -> tuple[TrustStramException, list[str]]:
    if isinstance(error, TrustStramException):
        return error, []
    unforeseen = PlatformError(
        f"The prediction failed in the worker with {type(error).__name__}; the platform's log "
        "has the details."
    )
    return unforeseen, ["".join(traceback.format_exception(error))]
