"""Whether a run's plan can work, before anything of it is written."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine

from truststram_lab.exceptions import InvalidInputError, TrustStramException
from truststram_lab.schemas.federation import CreateRun
from truststram_lab.schemas.privacy import ClientPlan
from truststram_lab.schemas.strategies import Scaffold
from truststram_lab.server.stores.blobs import BlobStore
from truststram_lab.server.stores.engine import reading

from .layouts import CONTROL
from .networks import check_architecture, check_weights

__all__ = ["check_plan"]


def check_plan(engine: Engine, blobs: BlobStore, organisation_id: str, plan: CreateRun) -> None:
    """Refuse a plan that contradicts itself or its weights.

    Raises:
        InvalidInputError: with the field.
    """
    _check_sites(plan)
    _check_network(plan)
    _check_quorum(plan)
    if isinstance(plan.privacy, ClientPlan):
        _check_client_privacy(plan, plan.privacy)
    if plan.privacy is not None and plan.privacy.rounds < plan.rounds:
        raise InvalidInputError(
            f"The privacy plan is for {plan.privacy.rounds} rounds, the run has {plan.rounds}; "
            "plan for all of them.",
            field="privacy.rounds",
        )
    if plan.initial_weights_sha256 is not None:
        _check_initial(engine, blobs, organisation_id, plan, plan.initial_weights_sha256)
    elif plan.simulated and plan.architecture is not None:
        raise InvalidInputError(
            "A simulated run starts from weights; upload them with PUT /api/v1/blobs/<sha256> and "
            "name their SHA-256.",
            field="initial_weights_sha256",
        )


def _check_sites(plan: CreateRun) -> None:
    if len(set(plan.sites)) < len(plan.sites):
        twice = next(name for name in plan.sites if plan.sites.count(name) > 1)
        raise InvalidInputError(
            f"Site {twice!r} comes twice in the plan; name every site once.", field="sites"
        )
    if not plan.sites and not plan.open_roster:
        raise InvalidInputError(
            "The plan names no site; name one or more, or set open_roster for every participant "
            "of the federation.",
            field="sites",
        )
    if plan.open_roster and plan.simulated:
        raise InvalidInputError(
            "A simulated run knows its sites; name them, or set simulated to false.",
            field="open_roster",
        )


def _check_network(plan: CreateRun) -> None:
    if plan.architecture is None and plan.signature is None:
        return
    if plan.architecture is None or plan.signature is None:
        missing = "architecture" if plan.architecture is None else "signature"
        raise InvalidInputError(
            f"The plan has no {missing}; give architecture and signature, or neither of them for "
            "a run of named arrays.",
            field=missing,
        )
    from truststram_lab.preprocessing import encoded_width  # numpy loads on first use

    check_architecture(plan.architecture, plan.signature)
    width = encoded_width(plan.signature)
    if plan.architecture.inputs != width:
        raise InvalidInputError(
            f"The signature encodes to {width} inputs, the architecture takes "
            f"{plan.architecture.inputs}; set inputs to {width}.",
            field="architecture.inputs",
        )


def _check_quorum(plan: CreateRun) -> None:
    quorum, least = plan.quorum, plan.strategy.least_updates
    sites = None if plan.open_roster else len(plan.sites)
    if sites is not None:
        for name in ("min_available", "min_fit", "min_evaluate"):
            if getattr(quorum, name) > sites:
                raise InvalidInputError(
                    f"{name} is {getattr(quorum, name)}, but the plan names {sites} sites; set it "
                    f"to {sites} or less.",
                    field=f"quorum.{name}",
                )
        asked = quorum.cohort_size(sites)
        if asked < least:
            raise InvalidInputError(
                f"The strategy {plan.strategy} needs {least} updates in a round, and a round asks "
                f"{asked} of {sites} sites; ask more of them, or choose another strategy.",
                field="strategy",
            )
    if quorum.min_updates is not None and quorum.min_updates < least:
        raise InvalidInputError(
            f"The strategy {plan.strategy} needs {least} updates, so min_updates "
            f"{quorum.min_updates} cannot suffice; set it to {least} or more.",
            field="quorum.min_updates",
        )


def _check_client_privacy(plan: CreateRun, privacy: ClientPlan) -> None:
    sites = len(plan.sites) if plan.hosted is None else plan.hosted.clients
    if plan.open_roster or privacy.sites != sites:
        known = "an open roster" if plan.open_roster else f"{sites} sites"
        raise InvalidInputError(
            f"Client-level privacy draws from a fixed roster of {privacy.sites} sites, and the "
            f"plan has {known}; name every site.",
            field="privacy.sites",
        )
    strategy = plan.sites_strategy
    if strategy.sees_single_updates or isinstance(strategy, Scaffold):
        raise InvalidInputError(
            f"The strategy {strategy.name} uses more than the noised sum of the updates, "
            "which is all that client-level privacy covers; choose fedavg.",
            field="strategy",
        )
    if plan.filters:
        raise InvalidInputError(
            "Client-level privacy clips every update as a whole; leave the filters out.",
            field="filters",
        )


def _check_initial(
    engine: Engine, blobs: BlobStore, organisation_id: str, plan: CreateRun, sha256: str
) -> None:
    field = "initial_weights_sha256"
    with reading(engine) as connection:
        stored = blobs.find(connection, organisation_id, sha256)
    if stored is None:
        raise InvalidInputError(
            f"No file with SHA-256 {sha256} is stored; upload the initial "
            "weights first with PUT /api/v1/blobs/<sha256>.",
            field=field,
        )
    content = blobs.read(organisation_id, sha256)
    if plan.architecture is None:
        _check_arrays(content, plan, field)
        return
    state = check_weights(content, plan.architecture, field)
    found = str(next(iter(state.values())).dtype)
    if found != plan.local.dtype:
        raise InvalidInputError(
            f"The initial weights are {found}, the plan trains in {plan.local.dtype}; "
            "upload weights of that type.",
            field=field,
        )


def _check_arrays(content: bytes, plan: CreateRun, field: str) -> None:
    from truststram_lab.learning import weights
    from truststram_lab.learning.privacy.mechanisms import global_norm

    try:
        state: dict[str, Any] = weights.decode(content)[0]
        weights.check_update(state, state)
        if isinstance(plan.privacy, ClientPlan):
            global_norm(state)
    except TrustStramException as error:
        raise InvalidInputError(
            f"The initial weights cannot be used: {error.message}", field=field
        ) from error
    reserved = [name for name in state if name.startswith(CONTROL)]
    if not state or (reserved and isinstance(plan.strategy, Scaffold)):
        fact = f"array {reserved[0]!r}, a name that SCAFFOLD uses" if reserved else "no arrays"
        raise InvalidInputError(
            f"The initial weights have {fact}; upload the model's own.", field=field
        )
