"""What waits for a worker, and how its answer is read."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from truststram_lab.exceptions import InvalidInputError, PlatformError, TrustStramException
from truststram_lab.schemas.serving import PredictRequest

from .interface import Answer, Question, ServedVersion

__all__ = [
    "PREDICT_ROWS",
    "Job",
    "answers",
    "batch_header",
    "check_request",
    "checked",
    "fail",
    "hopeless",
    "joined",
    "load_header",
    "problem_body",
    "unforeseen",
]

log = logging.getLogger(__name__)

#: The most rows of one request.
PREDICT_ROWS = 10_000

#: around the predictions of an answer
_OPENING, _CLOSING = b'{"predictions":[', b"]}"


@dataclass(eq=False)
class Job:
    """One thing for a worker to do; ``waiting_since_s`` is of ``time.monotonic()``."""

    kind: Literal["predict", "load", "forget", "inspect"]
    version: ServedVersion | None = None
    question: Question | None = None
    subject: str = ""
    waiting_since_s: float = 0.0
    future: Future[Any] = field(default_factory=Future)
    retried: bool = False

    @property
    def bytes(self) -> int:
        """What it adds to a batch."""
        return len(self.question.body) if self.question is not None else 0

    def joins(self, other: Job) -> bool:
        """Whether both can go in one batch: same version, and neither killed a worker."""
        return (
            self.kind == other.kind == "predict"
            and not self.retried
            and not other.retried
            and self.version is not None
            and other.version is not None
            and self.version.id == other.version.id
        )


def batch_header(jobs: Sequence[Job]) -> dict[str, Any]:
    """The header of one message for all the jobs, which are for one version."""
    asked = [job.question for job in jobs if job.question is not None]
    assert jobs[0].version is not None
    return {
        "op": "predict",
        "id": jobs[0].version.id,
        "questions": [[one.id, one.started_s, one.first, one.total] for one in asked],
    }


def load_header(version: ServedVersion, op: str = "load") -> dict[str, Any]:
    """Everything a worker needs to build the version."""
    architecture, statistics = version.architecture, version.statistics
    described = {
        "id": version.id,
        "label": version.label,
        "weights": str(version.weights),
        "weights_sha256": version.weights_sha256,
        "architecture": None if architecture is None else architecture.model_dump(mode="json"),
        "signature": version.signature.model_dump(mode="json"),
        "statistics": None if statistics is None else statistics.model_dump(mode="json"),
    }
    return {"op": op, "version": described}


def checked(header: dict[str, Any]) -> dict[str, Any]:
    """The reply's header, or the error that it carries, raised."""
    _log_traces(header)
    if "error" in header:
        problem = header["error"]
        raise TrustStramException.from_problem(problem, int(problem["status"]))
    return header


def answers(header: Mapping[str, Any], bodies: Sequence[bytes]) -> list[Answer]:
    """The answers of a batch, in the order of its questions."""
    return [
        Answer(status, body, rows)
        for (status, rows), body in zip(header["answers"], bodies, strict=True)
    ]


def _log_traces(header: Mapping[str, Any]) -> None:
    for trace in header.get("traces", ()):
        log.error("in the prediction worker:\n%s", trace)


def fail(job: Job, error: TrustStramException) -> None:
    """Answer the job with an error of its own: raising adds a traceback to the object."""
    own = TrustStramException.from_problem(error.to_problem(), error.status)
    own.__cause__ = error
    if not job.future.done():
        job.future.set_exception(own)


def hopeless(job: Job) -> PlatformError:
    """What to say of a request that two workers did not survive."""
    size = f" of {job.bytes:,} bytes" if job.kind == "predict" else ""
    return PlatformError(
        f"The prediction worker ended twice while it answered this request{size}; send fewer "
        "rows in one request, or look into the platform's log."
    )


def unforeseen(error: Exception) -> PlatformError:
    """A fault of ours as a sentence."""
    fault = PlatformError(f"The prediction failed with {type(error).__name__}.")
    fault.__cause__ = error
    return fault


def problem_body(error: TrustStramException) -> bytes:
    """A problem as JSON text."""
    return json.dumps(error.to_problem(), ensure_ascii=False).encode("utf-8", "backslashreplace")


def check_request(count: int, request: PredictRequest) -> None:
    """Refuse a wrong number of rows, and a class without an explanation."""
    if not 1 <= count <= PREDICT_ROWS:
        raise InvalidInputError(
            f"The request has {count} rows; send 1 to {PREDICT_ROWS:,} at a time.",
            field="data",
        )
    if request.explain_class is not None and not request.explain:
        raise InvalidInputError(
            f"explain_class is {request.explain_class!r} but explain is off; send "
            '"explain": true with it.',
            field="explain",
        )


def joined(pieces: Sequence[Answer]) -> Answer:
    """The answers to the pieces of one request as one."""
    if len(pieces) == 1:
        return pieces[0]
    inner = b",".join(one.body[len(_OPENING) : -len(_CLOSING)] for one in pieces)
    return Answer(200, _OPENING + inner + _CLOSING, sum(one.rows for one in pieces))
