"""What a serving backend does, whether its workers are processes here or a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from truststram_lab.schemas.registry import Architecture
from truststram_lab.schemas.serving import Explanation
from truststram_lab.schemas.tables import Signature, Statistics

__all__ = ["Answer", "Backend", "BackendEvent", "Row", "ServedVersion", "VersionStatus"]

Row = Mapping[str, Any]
VersionStatus = Literal["ready", "starting", "failed", "drained"]


@dataclass(frozen=True)
class ServedVersion:
    """An immutable version, as a worker needs it.

    Args:
        id: the version's own id; two versions never share one.
        label: how people call it, for example ``breast-cancer:3``.
        weights: the safetensors file, a path the platform itself made.
        weights_sha256: of the file's content; a worker loads nothing else.
    """

    id: str
    label: str
    weights: Path
    weights_sha256: str
    architecture: Architecture
    signature: Signature
    statistics: Statistics


@dataclass(frozen=True)
class Answer:
    """One request's answer: a list of class probabilities a row, in the signature's order.

    ``explanations`` has one entry a row, or is None if none were asked for.
    """

    probabilities: list[list[float]]
    explanations: list[Explanation] | None


@dataclass(frozen=True)
class BackendEvent:
    """Something that happened to a worker or a version; ``sequence`` starts at 1."""

    sequence: int
    type: Literal[
        "worker.started",
        "worker.died",
        "version.ready",
        "version.failed",
        "version.drained",
        "version.deleted",
    ]
    data: Mapping[str, str | int]


class Backend(Protocol):
    """Runs versions. Every method may be called from any thread.

    A version need not be applied before it is asked: an unknown one is loaded on the first
    request, which is how deployments wake after a restart.
    """

    def apply(self, version: ServedVersion) -> None:
        """Load the version now and prove that it answers.

        Raises:
            PlatformError: its weights are missing, damaged or do not fit.
        """
        ...

    def status(self, version_id: str) -> VersionStatus:
        """Where the version stands; ``starting`` until it has been loaded."""
        ...

    def predict(
        self,
        version: ServedVersion,
        rows: Sequence[Row],
        *,
        explain: bool = False,
        explain_class: str | None = None,
    ) -> Future[Answer]:
        """Ask for validated rows; the future raises TrustStramException.

        Raises:
            InsufficientResourcesError: too many rows are waiting already.
            ConflictError: the version was drained or deleted.
        """
        ...

    def drain(self, version_id: str, *, timeout_s: float = 30.0) -> bool:
        """Take no more requests for the version; True once none of them is open."""
        ...

    def delete(self, version_id: str) -> None:
        """Drain the version and free its memory; ``apply`` brings it back."""
        ...

    def events(self, after: int = 0) -> list[BackendEvent]:
        """What happened since event ``after``, oldest first; old ones are dropped."""
        ...

    def close(self) -> None:
        """End the workers; what still waits fails with PlatformUnavailableError."""
        ...
