"""What waits for a worker, and how its answer is read."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from truststram_lab.exceptions import InvalidInputError, PlatformError, TrustStramException
from truststram_lab.schemas.serving import Explanation

from .interface import Answer, Row, ServedVersion

__all__ = ["Job", "answer_of", "batch_message", "checked", "fail", "hopeless", "load_message"]

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Job:
    """One thing to do in the worker; ``body`` is its part of the message, as JSON text."""

    kind: Literal["predict", "load", "forget", "inspect"]
    version: ServedVersion | None = None
    body: str = ""
    rows: int = 0
    future: Future[Any] = field(default_factory=Future)
    retried: bool = False

    @staticmethod
    def asking(
        version: ServedVersion, rows: Sequence[Row], explain: bool, explain_class: str | None
    ) -> Job:
        """A request for predictions; written out here, in its caller's thread.

        Raises:
            InvalidInputError: a row holds something that JSON cannot carry.
        """
        request = {"rows": list(rows), "explain": explain, "explain_class": explain_class}
        try:
            body = json.dumps(request, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(
                f"A row cannot be sent to the worker ({error}); use numbers, texts, true, false "
                "and null."
            ) from error
        return Job("predict", version, body, len(rows))

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


def batch_message(jobs: Sequence[Job]) -> str:
    """One message for all the jobs, which are for one version."""
    version = jobs[0].version
    assert version is not None
    requests = ",".join(job.body for job in jobs)
    return f'{{"op": "predict", "id": {json.dumps(version.id)}, "requests": [{requests}]}}'


def load_message(version: ServedVersion) -> str:
    """Everything a worker needs to build the version."""
    described = {
        "id": version.id,
        "label": version.label,
        "weights": str(version.weights),
        "weights_sha256": version.weights_sha256,
        "architecture": version.architecture.model_dump(mode="json"),
        "signature": version.signature.model_dump(mode="json"),
        "statistics": version.statistics.model_dump(mode="json"),
    }
    return json.dumps({"op": "load", "version": described})


def checked(reply: dict[str, Any]) -> dict[str, Any]:
    """The reply, or the error that it carries, raised."""
    if "error" not in reply:
        return reply
    if reply.get("trace"):
        log.error("in the prediction worker:\n%s", reply["trace"])
    problem = reply["error"]
    raise TrustStramException.from_problem(problem, int(problem["status"]))


def answer_of(reply: dict[str, Any]) -> Answer:
    """One request's answer."""
    explained = reply.get("explanations")
    return Answer(
        reply["probabilities"],
        None if explained is None else [Explanation.model_validate(one) for one in explained],
    )


def fail(job: Job, error: TrustStramException) -> None:
    """Answer the job with an error of its own: raising adds a traceback to the object."""
    own = TrustStramException.from_problem(error.to_problem(), error.status)
    own.__cause__ = error
    if not job.future.done():
        job.future.set_exception(own)


def hopeless(job: Job) -> PlatformError:
    """What to say of a request that two workers did not survive."""
    what = "this row" if job.rows == 1 else f"these {job.rows} rows"
    return PlatformError(
        f"The prediction worker ended twice while it answered {what}; send fewer rows in one "
        "request, or look into the platform's log."
    )
