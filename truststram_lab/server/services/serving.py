"""Endpoints, what they serve, and the predictions they give."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.schemas.base import Page
from truststram_lab.schemas.references import Reference
from truststram_lab.schemas.registry import NAME_PATTERN, ModelVersion
from truststram_lab.schemas.serving import (
    CreateDeployment,
    Deployment,
    Explanation,
    Prediction,
    PredictRequest,
)
from truststram_lab.server.serving.interface import Answer, Backend, ServedVersion
from truststram_lab.server.serving.local import LocalBackend
from truststram_lab.server.settings import Settings
from truststram_lab.server.stores import outbox
from truststram_lab.server.stores.blobs import BlobStore
from truststram_lab.server.stores.engine import on_commit, writing
from truststram_lab.server.stores.ids import new_id, timestamp

from .deployments import Deployments, record_deployment
from .registry import RegistryService, find_model

__all__ = ["PREDICT_ROWS", "PendingPrediction", "ServingService"]

#: The most rows of one request.
PREDICT_ROWS = 10_000

#: Rows that go to a worker at once; between two pieces of a long request others get a turn.
_PIECE_ROWS = 1024
_EXPLAINED_PIECE_ROWS = 64

#: A request of up to so many rows is checked in well under a millisecond.
_LIGHT_ROWS = 8

#: References that are remembered: what the endpoint serves, or a version.
_KEPT_REFS = 2048


@dataclass(frozen=True)
class PendingPrediction:
    """Rows that are with a worker; ``predictions`` turns its answer into ours."""

    model: str
    version: int
    served: ServedVersion
    future: Future[Answer]
    started_s: float

    def predictions(self, answer: Answer) -> list[Prediction]:
        """One prediction a row, with the time since the request was taken."""
        latency_ms = (time.perf_counter() - self.started_s) * 1000.0
        explanations: Iterable[Explanation | None]
        explanations = answer.explanations or [None] * len(answer.probabilities)
        return [
            self._prediction(probabilities, explanation, latency_ms)
            for probabilities, explanation in zip(answer.probabilities, explanations, strict=True)
        ]

    def _prediction(
        self, probabilities: list[float], explanation: Explanation | None, latency_ms: float
    ) -> Prediction:
        signature = self.served.signature
        by_label = dict(zip(signature.classes, probabilities, strict=True))
        label = max(by_label, key=by_label.__getitem__)
        confident = signature.positive_class or label
        return Prediction(
            prediction_id=new_id("pred"),
            model=self.model,
            version=self.version,
            label=label,
            probabilities=by_label,
            confidence=by_label[confident],
            confidence_class=confident,
            explanation=explanation,
            latency_ms=round(latency_ms, 3),
        )


class ServingService:
    """What an organisation's endpoints serve, and their answers.

    What a name means is remembered in memory until the organisation's stream tells of a
    change: one process serves an organisation.
    """

    def __init__(
        self,
        engine: Engine,
        blobs: BlobStore,
        settings: Settings,
        backend: Backend | None = None,
    ) -> None:
        self._engine = engine
        self._blobs = blobs
        self._settings = settings
        self._registry = RegistryService(engine, blobs, settings)
        self._backend: Backend = backend or LocalBackend()
        self._deployments = Deployments(
            engine, settings.environment, lambda id: self._backend.status(id) == "failed"
        )
        self._lock = threading.Lock()
        self._resolved: dict[tuple[str, str], ServedVersion] = {}
        self._generation = 0
        on_commit(engine, self._forget)

    def close(self) -> None:
        """End the workers; requests that still wait are refused."""
        self._backend.close()

    # ------------------------------------------------------------------ deployments

    def deploy(self, organisation_id: str, request: CreateDeployment) -> Deployment:
        """Point the model's endpoint at a version, once a worker has answered with it.

        A request without an environment means the platform's own. ``name@alias`` is pinned to
        the version that the alias names now. Deploying what is served already changes nothing.

        Raises:
            ModelNotFoundError: no such model or version.
            InvalidInputError: the environment is not a name.
            PlatformError: the version's weights are missing or damaged.
        """
        own = self._settings.environment
        environment = own if request.environment is None else request.environment
        if not re.fullmatch(NAME_PATTERN, environment):
            raise InvalidInputError(
                f"{environment[:80]!r} is not a name of an environment; use small letters, "
                f"digits, dots and dashes, such as {own!r}.",
                field="environment",
                choices=[own],
            )
        asked = Reference.parse(request.model)
        version = self._registry.resolve(organisation_id, asked)
        self._backend.apply(self._served(organisation_id, version))
        with writing(self._engine) as connection:
            model = find_model(connection, organisation_id, version.model)
            row = record_deployment(
                connection,
                model,
                version.sequence,
                environment,
                timestamp(),
                reference=f"{version.model}@{asked.alias}" if asked.alias else None,
            )
            return self._deployments.views(connection, [row])[0]

    def list_deployments(
        self, organisation_id: str, *, limit: int, cursor: str | None, search: str | None = None
    ) -> Page[Deployment]:
        """The endpoints, newest first."""
        return self._deployments.page(organisation_id, limit=limit, cursor=cursor, search=search)

    def get_deployment(self, organisation_id: str, name: str) -> Deployment:
        """The endpoint of that name; NotFoundError has the nearest names."""
        return self._deployments.get(organisation_id, name)

    # ------------------------------------------------------------------ predictions

    def predict(self, organisation_id: str, ref: str, request: PredictRequest) -> list[Prediction]:
        """One prediction a row. ``ref``: ``name`` follows the endpoint, ``name:3`` is a version.

        Raises:
            ModelNotFoundError: nothing of that name is deployed, or there is no such version.
            InvalidInputError: a row does not fit the signature; names the row and the column.
        """
        rows = _rows(request)
        size = _EXPLAINED_PIECE_ROWS if request.explain else _PIECE_ROWS
        served = self._resolve(organisation_id, ref)
        checked = _validated(rows, served)
        started_s = time.perf_counter()
        found: list[Prediction] = []
        for start in range(0, len(checked), size):
            part = checked[start : start + size]
            pending = self._submit(served, part, request, started_s)
            found += pending.predictions(pending.future.result())
        return found

    def is_light(self, organisation_id: str, ref: str, request: PredictRequest) -> bool:
        """Whether ``begin`` would neither read the database nor compute for long."""
        rows = 1 if isinstance(request.data, dict) else len(request.data)
        return rows <= _LIGHT_ROWS and (organisation_id, ref) in self._resolved

    def begin(self, organisation_id: str, ref: str, request: PredictRequest) -> PendingPrediction:
        """``predict`` without waiting, for few rows: check them and hand them to a worker."""
        started_s = time.perf_counter()
        rows = _rows(request)
        served = self._resolve(organisation_id, ref)
        return self._submit(served, _validated(rows, served), request, started_s)

    def _submit(
        self,
        served: ServedVersion,
        rows: Sequence[dict[str, Any]],
        request: PredictRequest,
        started_s: float,
    ) -> PendingPrediction:
        future = self._backend.predict(
            served, rows, explain=request.explain, explain_class=request.explain_class
        )
        model, _, sequence = served.label.rpartition(":")
        return PendingPrediction(model, int(sequence), served, future, started_s)

    def _resolve(self, organisation_id: str, ref: str) -> ServedVersion:
        """The version that ``ref`` means now, remembered until the organisation changes."""
        key = organisation_id, ref
        found = self._resolved.get(key)
        if found is not None:
            return found
        generation = self._generation
        asked = Reference.parse(ref)
        if asked.follows:
            asked = Reference(*self._deployments.serving(organisation_id, asked.name))
        version = self._registry.resolve(organisation_id, asked)
        served = self._served(organisation_id, version)
        with self._lock:
            # An answer that was read before a change must not be remembered after it.
            if generation == self._generation:
                if len(self._resolved) >= _KEPT_REFS:
                    self._resolved.clear()
                self._resolved[key] = served
        return served

    def _forget(self, touched: set[tuple[str, str]]) -> None:
        changed = {org for org, stream in touched if stream == outbox.ORGANISATION_STREAM}
        if changed:
            with self._lock:
                self._generation += 1
                self._resolved = {k: v for k, v in self._resolved.items() if k[0] not in changed}

    def _served(self, organisation_id: str, version: ModelVersion) -> ServedVersion:
        return ServedVersion(
            id=version.id,
            label=f"{version.model}:{version.sequence}",
            weights=self._blobs.path(organisation_id, version.weights_sha256),
            weights_sha256=version.weights_sha256,
            architecture=version.architecture,
            signature=version.signature,
            statistics=version.statistics,
        )


def _rows(request: PredictRequest) -> list[dict[str, Any]]:
    rows = [request.data] if isinstance(request.data, dict) else request.data
    if not 1 <= len(rows) <= PREDICT_ROWS:
        raise InvalidInputError(
            f"The request has {len(rows)} rows; send 1 to {PREDICT_ROWS:,} at a time.",
            field="data",
        )
    if request.explain_class is not None and not request.explain:
        raise InvalidInputError(
            f"explain_class is {request.explain_class!r} but explain is off; send "
            '"explain": true with it.',
            field="explain",
        )
    return rows


def _validated(rows: Sequence[dict[str, Any]], served: ServedVersion) -> list[dict[str, Any]]:
    # Loaded on first use: it brings numpy, and the platform listens before that.
    from truststram_lab.preprocessing.rows import validate_row

    checked: list[dict[str, Any]] = []
    for number, row in enumerate(rows, start=1):
        try:
            checked.append(validate_row(row, served.signature))
        except InvalidInputError as error:
            if len(rows) == 1:
                raise
            raise InvalidInputError(
                f"Row {number} of {len(rows)}: {error.message}",
                field=error.field,
                choices=error.choices,
            ) from error
    return checked
