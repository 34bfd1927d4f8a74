"""What a route gets: the services, the caller, and a checked body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, Engine
from starlette.concurrency import run_in_threadpool

from .metrics import Metrics
from .services.accounts import AccountsService, Principal
from .services.aggregation import Advancer
from .services.artifacts import ArtifactsService
from .services.budgets import BudgetsService
from .services.device_tokens import DeviceTokensService
from .services.events import EventsService
from .services.federation import FederationService
from .services.personalization import PersonalService
from .services.prediction_log import PredictionLog
from .services.preflight import PreflightService
from .services.records import RecordsService
from .services.registry import RegistryService
from .services.rounds import RoundsService
from .services.runs import RunsService
from .services.uploads import UploadsService
from .settings import Settings
from .stores.blobs import BlobStore, BlobWriter
from .strict_json import loads, validation_problem

if TYPE_CHECKING:
    from .lifecycle import Lifecycle
    from .services.serving import ServingService

__all__ = [
    "Caller",
    "Platform",
    "Services",
    "caller",
    "json_body",
    "receive_into",
    "services",
    "validation_problem",
]

M = TypeVar("M", bound=BaseModel)

#: what is handed to a thread at once
_PIECE_BYTES = 2**20


@dataclass(frozen=True)
class Services:
    """Everything behind the doors; one object a process."""

    settings: Settings
    engine: Engine
    #: keeps a PostgreSQL database this process's own
    owner: Connection | None
    blobs: BlobStore
    lifecycle: Lifecycle
    accounts: AccountsService
    device_tokens: DeviceTokensService
    registry: RegistryService
    uploads: UploadsService
    artifacts: ArtifactsService
    federation: FederationService
    preflight: PreflightService
    budgets: BudgetsService
    personal: PersonalService
    records: RecordsService
    runs: RunsService
    rounds: RoundsService
    advancer: Advancer
    events: EventsService
    metrics: Metrics
    prediction_log: PredictionLog
    serving: ServingService


def services(request: Request) -> Services:
    """The services, for a route that is not FastAPI's."""
    found: Services = request.app.state.services
    return found


def caller(request: Request) -> Principal:
    """The authenticated principal; the guard at the root has put it there."""
    found: Principal = request.state.principal
    return found


async def _services(request: Request) -> Services:
    return services(request)


async def _caller(request: Request) -> Principal:
    return caller(request)


#: parameter types of FastAPI routes; coroutines, so that they cost no thread
Platform = Annotated[Services, Depends(_services)]
Caller = Annotated[Principal, Depends(_caller)]


async def json_body(request: Request, kind: type[M]) -> M:
    """The body as a schema, for a route that is not FastAPI's.

    Raises:
        InvalidInputError: the body is no strict JSON or does not fit; names the field.
    """
    value = loads(await request.body())
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise validation_problem(error.errors(include_url=False, include_input=False)) from error


async def receive_into(writer: BlobWriter, request: Request) -> None:
    """Stream the request's body to disk, hashing it; the event loop never waits for the disk."""
    waiting = bytearray()
    async for piece in request.stream():
        waiting += piece
        if len(waiting) >= _PIECE_BYTES:
            await run_in_threadpool(writer.write, bytes(waiting))
            waiting.clear()
    if waiting:
        await run_in_threadpool(writer.write, bytes(waiting))
