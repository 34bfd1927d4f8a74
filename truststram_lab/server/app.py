"""The platform put together: services, routes, and the layers around them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp

from truststram_lab.exceptions import InvalidInputError, NotFoundError, TrustStramException

from .deps import Services, validation_problem
from .http import ABANDONED, AccessLog, Named, problem, unexpected
from .lifecycle import Lifecycle, ReadinessProbe
from .metrics import Metrics
from .openapi import document
from .routes import (
    accounts,
    events,
    federation,
    health,
    registry,
    runs,
    sandbox,
    serving,
    training,
)
from .routes.idempotency import Bodies
from .security import OPEN_DOORS, STANDING_DOORS, Forwarded, Guard
from .services.accounts import AccountsService
from .services.aggregation import Advancer
from .services.artifacts import ArtifactsService
from .services.budgets import BudgetsService
from .services.device_tokens import DeviceTokensService
from .services.events import EventsService, Wakeups
from .services.federation import FederationService
from .services.personalization import PersonalService
from .services.prediction_log import PredictionLog
from .services.preflight import PreflightService
from .services.presence import Presence
from .services.records import RecordsService
from .services.registry import RegistryService
from .services.rounds import RoundsService
from .services.runs import RunsService
from .services.serving import ServingService
from .services.setup import Setup
from .services.uploads import UploadsService
from .settings import Front, Settings
from .stores.blobs import BlobStore
from .stores.engine import on_commit, open_engine, own_database
from .stores.migrations import upgrade

__all__ = ["build_api", "build_app", "build_services", "describe"]


def build_services(settings: Settings) -> Services:
    """Open the stores, bring the database up to date, and start nothing yet.

    Raises:
        ConfigurationError: the database cannot be used, or was made by a newer package.
    """
    engine = open_engine(settings.url)
    owner = own_database(engine)
    upgrade(engine, settings.version)
    blobs = BlobStore(settings.blobs)
    blobs.sweep()
    wakeups = Wakeups()
    on_commit(engine, wakeups.committed)
    lifecycle = Lifecycle()
    lifecycle.on_closing(wakeups.wake_all)
    accounts_service = AccountsService(engine, settings)
    registry_service = RegistryService(engine, blobs, settings)
    prediction_log = PredictionLog(settings.home, settings.log_days)
    metrics = Metrics()
    serving_service = ServingService(engine, blobs, settings, prediction_log, metrics)
    metrics.watch(serving_service.load)
    presence = Presence()
    return Services(
        settings=settings,
        engine=engine,
        owner=owner,
        blobs=blobs,
        lifecycle=lifecycle,
        accounts=accounts_service,
        device_tokens=DeviceTokensService(engine, accounts_service, settings),
        registry=registry_service,
        uploads=UploadsService(engine, blobs),
        artifacts=ArtifactsService(registry_service, blobs),
        federation=FederationService(engine, accounts_service, settings),
        preflight=PreflightService(engine, presence),
        budgets=BudgetsService(engine),
        personal=PersonalService(engine, blobs),
        records=RecordsService(engine),
        runs=RunsService(engine, blobs, presence),
        rounds=RoundsService(engine, blobs, presence),
        advancer=Advancer(engine, blobs, settings, serving_service.deploy, presence),
        events=EventsService(engine, wakeups),
        metrics=metrics,
        prediction_log=prediction_log,
        serving=serving_service,
    )


def build_app(services: Services, hosts: Collection[str], front: Front | None = None) -> ASGIApp:
    """The application: log > proxy's headers > guard > bodies > routes.

    Args:
        hosts: the ``Host`` values under which it is reached, such as ``127.0.0.1:8080``.
        front: how a standing platform is reached; None is loopback, without TLS.
    """
    front = front or Front()
    api = build_api(services)
    doors = OPEN_DOORS | STANDING_DOORS if services.settings.standing else OPEN_DOORS
    layers: ASGIApp = Guard(
        serving.PredictDoor(Bodies(Named(api), services), services),
        services.accounts,
        hosts,
        scheme=front.scheme,
        open_doors=doors,
    )
    if front.behind_proxy:
        layers = Forwarded(layers, front.proxies, front.scheme)
    return AccessLog(layers, services.lifecycle, services.metrics)


def build_api(services: Services) -> FastAPI:
    """The routes alone, without the layers that guard them."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        services.events.wakeups.bind(asyncio.get_running_loop())
        services.advancer.start()
        services.prediction_log.start()
        yield
        services.advancer.close()
        await run_in_threadpool(services.serving.close)
        await run_in_threadpool(services.prediction_log.close)
        services.engine.dispose()

    settings = services.settings
    api = _routes(settings.version, standing=settings.standing)
    api.router.lifespan_context = lifespan
    api.state.services = services
    api.state.setup = Setup(services.engine, services.accounts)
    api.state.readiness = ReadinessProbe(services.engine, settings.blobs, services.lifecycle)
    api.add_exception_handler(TrustStramException, _told)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _refused)
    api.add_exception_handler(Exception, _failed)
    return api


def describe(version: str) -> dict[str, Any]:
    """The OpenAPI document of a standing platform; opens no store and starts nothing."""
    return _routes(version, standing=True).openapi()


class _Api(FastAPI):
    """FastAPI with a document that also has what it cannot see in the signatures."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if not self.openapi_schema:
            self.openapi_schema = document(super().openapi())
        return self.openapi_schema


def _routes(version: str, *, standing: bool) -> FastAPI:
    api = _Api(
        title="TrustStram",
        version=version,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    parts = (health, accounts, registry, federation, runs, training, events, sandbox, serving)
    for part in parts:
        api.include_router(part.router)
    if standing:
        api.include_router(health.readiness)
        api.include_router(accounts.first_administrator)
    # Looked at first: who asks for these asks often.
    api.router.routes[:0] = [*serving.routes, *training.direct]
    return api


async def _told(_: Request, error: Exception) -> Response:
    assert isinstance(error, TrustStramException)
    return problem(error)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem(validation_problem(error.errors()))


async def _refused(request: Request, error: Exception) -> Response:
    """What the router itself refuses: an unknown address, or a method it does not take."""
    assert isinstance(error, HTTPException)
    place = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return problem(
            NotFoundError(f"There is nothing at {place}; the API is under /api/v1.", name=place)
        )
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        told = InvalidInputError(f"{place} is not a request this address takes; use {allowed}.")
        return problem(told, status=405, headers=error.headers)
    told = InvalidInputError(f"The request could not be read: {error.detail}.")
    return problem(told, status=error.status_code, headers=error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        # The caller left before its request was whole: nobody reads this, the log has it.
        return Response(status_code=ABANDONED)
    response = problem(unexpected(error))
    request.state.failure = response
    return response
