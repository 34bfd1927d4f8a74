"""What a serving backend does, whether its workers are processes here or a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from truststram_lab.schemas.registry import Architecture
from truststram_lab.schemas.tables import Signature, Statistics

__all__ = [
    "Answer",
    "Backend",
    "BackendEvent",
    "Conversion",
    "Load",
    "Place",
    "PoolLoad",
    "Question",
    "Runtime",
    "ServedVersion",
    "VersionStatus",
]

#: networks in numpy, estimators in onnxruntime, or in scikit-learn itself
Runtime = Literal["network", "onnx", "sklearn"]
VersionStatus = Literal["ready", "starting", "failed", "drained"]


@dataclass(frozen=True)
class Place:
    """Workers of a deployment's own.

    Args:
        id: of the deployment's revision; it never comes back once it was released.
        minimum: workers that run whenever one does.
        maximum: that many under load, as far as memory and cores allow.
    """

    id: str
    minimum: int
    maximum: int


@dataclass(frozen=True)
class ServedVersion:
    """An immutable version, as a worker needs it.

    Args:
        id: the version's own id; two versions never share one.
        label: how people call it, for example ``breast-cancer:3``.
        weights: the file that the runtime computes with, a path the platform itself made.
        weights_sha256: of the file's content; a worker loads nothing else.
        architecture, statistics: of a network; an estimator's file has all of it.
        runtime: which kind of worker computes it.
        place: None shares the workers of its kind with all others.
    """

    id: str
    label: str
    weights: Path
    weights_sha256: str
    architecture: Architecture | None
    signature: Signature
    statistics: Statistics | None
    runtime: Runtime = "network"
    place: Place | None = None


@dataclass(frozen=True)
class Conversion:
    """What is to compute an estimator, and why; ``content`` is a new file for that, if any."""

    runtime: Runtime
    reason: str
    content: bytes | None = None


@dataclass(frozen=True)
class Question:
    """A request as it came, for a worker to read and check.

    Args:
        body: the JSON text of a ``PredictRequest``.
        id: of the prediction; of several rows each adds its number.
        started_s: ``time.monotonic()`` when it came.
        first, total: which rows of a longer request these are, for the sentences of errors.
    """

    body: bytes
    id: str
    started_s: float
    first: int = 1
    total: int | None = None


@dataclass(frozen=True)
class Answer:
    """A worker's answer to one question, ready to be sent.

    Args:
        status: of HTTP; 200, or that of the problem in the body.
        body: a ``PredictResponse``, or a problem (RFC 9457), as JSON text.
        rows: predictions in it.
    """

    status: int
    body: bytes
    rows: int


@dataclass(frozen=True)
class BackendEvent:
    """Something that happened to a worker or a version; ``sequence`` starts at 1."""

    sequence: int
    type: Literal[
        "worker.started",
        "worker.died",
        "worker.ended",
        "version.ready",
        "version.failed",
        "version.drained",
        "version.deleted",
    ]
    data: Mapping[str, str | int]


@dataclass(frozen=True)
class PoolLoad:
    """Workers that share a queue, and what waits in it.

    Args:
        name: of the runtime where all share it, else of the deployment's revision.
    """

    name: str
    runtime: str
    workers: int
    waiting: int


@dataclass(frozen=True)
class Load:
    """What the backend does now, and did since it was made."""

    pools: list[PoolLoad]
    requests: int
    batches: int
    busy_s: float
    workers_started: int


class Backend(Protocol):
    """Runs versions. Every method may be called from any thread.

    A version need not be applied before it is asked: an unknown one is loaded on the first
    request, which is how deployments wake after a restart.
    """

    def apply(self, version: ServedVersion) -> None:
        """Load the version now, on as many workers as it is to have, and prove that it answers.

        Raises:
            PlatformError: its weights are missing, damaged or do not fit.
            InsufficientResourcesError: its place's minimum does not fit; none of it is kept.
        """
        ...

    def check_room(self, label: str, place: Place) -> None:
        """Refuse a place whose minimum cannot fit, before anything is loaded for it.

        Raises:
            InsufficientResourcesError: says what is there and what is needed.
        """
        ...

    def convert(self, version: ServedVersion) -> Conversion:
        """Whether onnxruntime answers as an estimator's own scikit-learn does.

        Raises:
            PlatformError: its file is missing, damaged, or holds an unknown type.
            ConfigurationError: the platform has no scikit-learn to read it with.
        """
        ...

    def release(self, place: str) -> None:
        """Let a place's workers finish what they have and end; later requests share workers."""
        ...

    def status(self, version_id: str) -> VersionStatus:
        """Where the version stands; ``starting`` until it has been loaded."""
        ...

    def workers(self, place: str) -> int:
        """How many workers the place has now; 0 before it is asked."""
        ...

    def predict(self, version: ServedVersion, question: Question) -> Future[Answer]:
        """Ask; a wrong request is an answer, too. The future raises TrustStramException.

        Raises:
            InsufficientResourcesError: too much is waiting already.
            ConflictError: the version was drained or deleted.
        """
        ...

    def drain(self, version_id: str, *, timeout_s: float = 30.0) -> bool:
        """Take no more requests for the version; True once none of them is open."""
        ...

    def delete(self, version_id: str) -> None:
        """Drain the version and free its memory; ``apply`` brings it back."""
        ...

    def load(self) -> Load:
        """What it does now, and did since it was made."""
        ...

    def events(self, after: int = 0) -> list[BackendEvent]:
        """What happened since event ``after``, oldest first; old ones are dropped."""
        ...

    def close(self) -> None:
        """End the workers; what still waits fails with PlatformUnavailableError."""
        ...
