"""Endpoints, what they serve, and the predictions they give."""

from __future__ import annotations

import json
import re
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Engine

from truststram_lab.exceptions import InvalidInputError, TrustStramException
from truststram_lab.schemas.base import Page
from truststram_lab.schemas.references import Reference
from truststram_lab.schemas.registry import NAME_PATTERN, ModelVersion
from truststram_lab.schemas.serving import (
    CreateDeployment,
    Deployment,
    PredictRequest,
)
from truststram_lab.server import strict_json
from truststram_lab.server.metrics import Metrics
from truststram_lab.server.serving.interface import (
    Answer,
    Backend,
    Load,
    Question,
    Runtime,
    ServedVersion,
)
from truststram_lab.server.serving.jobs import check_request, joined
from truststram_lab.server.serving.local import LocalBackend
from truststram_lab.server.settings import Settings
from truststram_lab.server.stores import outbox
from truststram_lab.server.stores.blobs import Blob, BlobStore
from truststram_lab.server.stores.engine import on_commit, reading, writing
from truststram_lab.server.stores.ids import new_id, timestamp

from .accounts import Principal
from .deletions import delete_deployment
from .deployments import Deployments, Serving, record_deployment
from .prediction_log import Answered, PredictionLog
from .registry import RegistryService, find_model

__all__ = ["Pending", "ServingService"]

#: Rows that go to a worker at once; between two pieces of a long request others get a turn.
_PIECE_ROWS = 1024
_EXPLAINED_PIECE_ROWS = 64

#: References that are remembered: what the endpoint serves, or a version.
_KEPT_REFS = 2048


@dataclass(frozen=True)
class Known:
    """What a reference means: a version, and the deployment that leads to it, if one does."""

    served: ServedVersion
    #: for the log: the deployment's name, or the reference itself
    name: str


@dataclass(frozen=True)
class Pending:
    """A request that was handed to a worker."""

    who: Principal
    known: Known
    id: str
    started_s: float
    future: Future[Answer]


class ServingService:
    """What an organisation's endpoints serve, and their answers.

    Every answer is in the log before anybody gets it. What a name means is remembered in memory
    until the organisation's stream tells of a change: one process serves an organisation.
    """

    def __init__(
        self,
        engine: Engine,
        blobs: BlobStore,
        settings: Settings,
        log: PredictionLog,
        metrics: Metrics,
        backend: Backend | None = None,
    ) -> None:
        self._engine = engine
        self._blobs = blobs
        self._settings = settings
        self._log = log
        self._metrics = metrics
        self._registry = RegistryService(engine, blobs, settings)
        self._backend: Backend = backend or LocalBackend()
        self._deployments = Deployments(
            engine,
            settings.environment,
            lambda id: self._backend.status(id) == "failed",
            self._backend.workers,
        )
        self._lock = threading.Lock()
        self._resolved: dict[tuple[str, str], Known] = {}
        self._generation = 0
        on_commit(engine, self._forget)

    def load(self) -> Load:
        """What the workers do now."""
        return self._backend.load()

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
            InsufficientResourcesError: the minimum of its workers does not fit.
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
        wanted = Serving(version.model, version.sequence, new_id("rev"), request.scaling_config)
        former = self._deployments.current(organisation_id, version.model, environment)
        made: Blob | None = None
        if wanted.place is not None and not wanted.is_same(former):
            self._backend.check_room(str(asked), wanted.place)
        if wanted.is_same(former):
            assert former is not None
            wanted = former
        else:
            wanted, made = self._computed_by(organisation_id, version, wanted)
        self._backend.apply(self._served(organisation_id, version, wanted))
        with writing(self._engine) as connection:
            if made is not None:
                self._blobs.record(connection, organisation_id, made, timestamp())
            model = find_model(connection, organisation_id, version.model)
            row = record_deployment(
                connection,
                model,
                wanted,
                environment,
                timestamp(),
                reference=f"{version.model}@{asked.alias}" if asked.alias else None,
            )
        if former is not None and former is not wanted and former.place is not None:
            self._backend.release(former.place.id)
        with reading(self._engine) as connection:
            return self._deployments.views(connection, [row])[0]

    def _computed_by(
        self, organisation_id: str, version: ModelVersion, wanted: Serving
    ) -> tuple[Serving, Blob | None]:
        """``wanted`` with what is to compute the version, and the file that was made for that.

        An estimator is converted once, at its first deployment.
        """
        if version.format == "safetensors":
            return replace(wanted, runtime="network"), None
        known = self._deployments.conversion(version.id)
        if known is not None:
            same = replace(
                wanted,
                runtime=known.runtime,
                runtime_reason=known.runtime_reason,
                converted_sha256=known.converted_sha256,
            )
            return same, None
        found = self._backend.convert(self._served(organisation_id, version, None))
        made = None if found.content is None else self._blobs.put(organisation_id, found.content)
        computed = replace(
            wanted,
            runtime=found.runtime,
            runtime_reason=found.reason,
            converted_sha256=None if made is None else made.sha256,
        )
        return computed, made

    def delete_deployment(self, organisation_id: str, name: str, environment: str | None) -> None:
        """Serve it no more; requests under way are answered, and its own workers end.

        Raises:
            NotFoundError: there is no such deployment; has the nearest names.
        """
        with writing(self._engine) as connection:
            row = self._deployments.row(connection, organisation_id, name, environment)
            ended = delete_deployment(connection, row, timestamp())
        for id in ended:
            self._backend.release(id)

    def list_deployments(
        self, organisation_id: str, *, limit: int, cursor: str | None, search: str | None = None
    ) -> Page[Deployment]:
        """The endpoints, newest first."""
        return self._deployments.page(organisation_id, limit=limit, cursor=cursor, search=search)

    def get_deployment(self, organisation_id: str, name: str) -> Deployment:
        """The endpoint of that name; NotFoundError has the nearest names."""
        return self._deployments.get(organisation_id, name)

    # ------------------------------------------------------------------ predictions

    def is_known(self, organisation_id: str, ref: str) -> bool:
        """Whether ``begin`` would not read the database."""
        return (organisation_id, ref) in self._resolved

    def know(self, organisation_id: str, ref: str) -> None:
        """Read what a reference means.

        ``ref``: ``name`` follows the endpoint, ``name:3`` is a version.

        Raises:
            ModelNotFoundError: nothing of that name is deployed, or there is no such version.
        """
        self._resolve(organisation_id, ref)

    def begin(self, who: Principal, ref: str, body: bytes) -> Pending:
        """Hand a request as it came to a worker, which reads and checks it; then ``finish``."""
        known = self._resolve(who.organisation_id, ref)
        id, started_s = new_id("pred"), time.monotonic()
        future = self._backend.predict(known.served, Question(body, id, started_s))
        return Pending(who, known, id, started_s, future)

    def finish(self, pending: Pending, answer: Answer | TrustStramException) -> None:
        """Put the answer into the log.

        Raises:
            InsufficientResourcesError: it cannot be written, so the answer must not be given.
        """
        self._note(pending.who, pending.known, pending.id, pending.started_s, answer)

    def answer(self, who: Principal, ref: str, body: bytes) -> Answer:
        """Both, and wait; a long request goes in pieces, between which others get a turn.

        Raises:
            InvalidInputError: the body is no request; a row that does not fit is an answer.
        """
        known = self._resolve(who.organisation_id, ref)
        try:
            request = PredictRequest.model_validate(strict_json.loads(body))
        except ValidationError as error:
            raise strict_json.validation_problem(error.errors(include_url=False)) from error
        id, started_s = new_id("pred"), time.monotonic()
        try:
            answer = self._in_pieces(known.served, request, id, started_s)
        except TrustStramException as error:
            self._note(who, known, id, started_s, error)
            raise
        self._note(who, known, id, started_s, answer)
        return answer

    def _note(
        self,
        who: Principal,
        known: Known,
        id: str,
        started_s: float,
        answer: Answer | TrustStramException,
    ) -> None:
        model, _, version = known.served.label.rpartition(":")
        rows = answer.rows if isinstance(answer, Answer) else 0
        self._metrics.prediction(who.organisation, model, version, answer.status, rows)
        self._log.note(
            Answered(
                id=id,
                organisation_id=who.organisation_id,
                name=known.name,
                model=model,
                version=int(version),
                caller=who.label,
                status=answer.status,
                rows=rows,
                latency_ms=(time.monotonic() - started_s) * 1000.0,
            )
        )

    def _in_pieces(
        self, served: ServedVersion, request: PredictRequest, id: str, started_s: float
    ) -> Answer:
        rows = [request.data] if isinstance(request.data, dict) else request.data
        check_request(len(rows), request)
        size = _EXPLAINED_PIECE_ROWS if request.explain else _PIECE_ROWS
        told = request.model_dump(exclude={"data"})
        found: list[Answer] = []
        for start in range(0, len(rows), size):
            body = _json({**told, "data": rows[start : start + size]})
            question = Question(body, id, started_s, first=start + 1, total=len(rows))
            answer = self._backend.predict(served, question).result()
            if answer.status != 200:
                return answer
            found.append(answer)
        return joined(found)

    def _resolve(self, organisation_id: str, ref: str) -> Known:
        """The version that ``ref`` means now, remembered until the organisation changes."""
        key = organisation_id, ref
        found = self._resolved.get(key)
        if found is not None:
            return found
        generation = self._generation
        asked, serving, name = Reference.parse(ref), None, ref
        if asked.follows:
            serving = self._deployments.serving(organisation_id, asked.name)
            asked, name = Reference(serving.model, str(serving.sequence)), serving.model
        version = self._registry.resolve(organisation_id, asked)
        if serving is None and version.format != "safetensors":
            # A version by itself shares its workers, and the conversion, if it was deployed once.
            before = self._deployments.conversion(version.id)
            serving = None if before is None else replace(before, scaling=None)
        known = Known(self._served(organisation_id, version, serving), name)
        with self._lock:
            # An answer that was read before a change must not be remembered after it.
            if generation == self._generation:
                if len(self._resolved) >= _KEPT_REFS:
                    self._resolved.clear()
                self._resolved[key] = known
        return known

    def _forget(self, touched: set[tuple[str, str]]) -> None:
        changed = {org for org, stream in touched if stream == outbox.ORGANISATION_STREAM}
        if changed:
            with self._lock:
                self._generation += 1
                self._resolved = {k: v for k, v in self._resolved.items() if k[0] not in changed}

    def _served(
        self, organisation_id: str, version: ModelVersion, serving: Serving | None
    ) -> ServedVersion:
        converted = None if serving is None else serving.converted_sha256
        sha256 = converted or version.weights_sha256
        estimator: Runtime = "sklearn" if converted is None else "onnx"
        return ServedVersion(
            # Where a version is computed in two ways, they are two to a worker.
            id=version.id if converted is None else f"{version.id}/{converted[:16]}",
            label=f"{version.model}:{version.sequence}",
            weights=self._blobs.path(organisation_id, sha256),
            weights_sha256=sha256,
            architecture=version.architecture,
            signature=version.signature,
            statistics=version.statistics,
            runtime="network" if version.format == "safetensors" else estimator,
            place=None if serving is None else serving.place,
        )


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"A row cannot be sent to the worker ({error}); use numbers, texts, true, false "
            "and null.",
            field="data",
        ) from error
