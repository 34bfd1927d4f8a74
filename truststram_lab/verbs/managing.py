"""Make federations, invite sites, open runs over them, and say what they may spend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from truststram_lab.exceptions import ConflictError, InvalidInputError, NotFoundError
from truststram_lab.federated.open_run import (
    OpenRun,
    agreed_signature,
    described_sites,
    plan_of,
)
from truststram_lab.federated.options import filters_of, unit_of
from truststram_lab.federated.record_privacy import DpWish, PrivacyWish, privacy_fields
from truststram_lab.schemas.federation import Federation, LocalTraining, Run, SetBudget

from . import session as sessions
from .choices import not_an_action
from .joining import TOKEN_VARIABLE
from .participant_results import FederationDetail, FederationList, Invitations
from .participants import joined_to
from .site_view import follow_run
from .waiting_sites import await_sites

if TYPE_CHECKING:
    from truststram_lab.schemas.filters import Filter
    from truststram_lab.schemas.privacy import Unit
    from truststram_lab.schemas.strategies import AnyStrategy

__all__ = ["FEDERATION_ACTIONS", "federations"]

FEDERATION_ACTIONS = ("create", "invite", "open", "close", "budget")

_PAGE = 100
#: Of a budget or a run that names none; far below one over the sites of any federation.
_DELTA = 1e-5
_LIMITS: dict[str, tuple[float, float]] = {
    "rounds": (1, 100_000),
    "epochs": (1, 10_000),
    "batch_size": (1, 1_000_000),
    "learning_rate": (0, 100),
    "deadline": (0, 30 * 86_400),
    "epsilon": (0, 1_000_000),
    "dp": (0, 1_000_000),
}


def federations(
    name: str | None = None,
    action: str | None = None,
    *names: str,
    sites: Sequence[str] | None = None,
    description: str = "",
    model: str | None = None,
    positive: str | None = None,
    rounds: int = 10,
    strategy: str | Mapping[str, Any] | AnyStrategy = "fedavg",
    filters: Sequence[str | Mapping[str, Any] | Filter] = (),
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    quorum: int | None = None,
    deadline: float | None = None,
    dp: float | None = None,
    dp_unit: str = "record",
    sample_rate: float | None = None,
    dp_statistics: str = "noised",
    clip: float = 1.0,
    epsilon: float | None = None,
    delta: float | None = None,
    unit: Unit | None = None,
    wait: bool = False,
    resume: bool = False,
    background: bool = False,
) -> FederationList | FederationDetail | Invitations | OpenRun:
    """All federations; with a name, one of them; with an action, what it says.

    Args:
        name: of the federation.
        action: ``create`` makes it; ``invite`` gives each of ``names`` a token; ``open`` starts
            a run over the sites that have joined; ``close`` takes no more of either; ``budget``
            sets the most that its sites' data may ever spend.
        names: sites to invite.
        sites: to invite while creating.
        model, positive, rounds, strategy, filters, epochs, batch_size, learning_rate, seed: of
            the run, as in ``federate``.
        quorum: sites that a round needs; all that have joined when left out.
        deadline: seconds of a round; without one it waits for everybody.
        dp, dp_unit, clip: the epsilon that the run may spend. It hides single rows (``record``,
            each row's gradient is clipped to the norm ``clip`` at its site) or whole sites
            (``client``, whose updates are clipped to it).
        sample_rate: of a record-level run, each row's chance to be in a step; 0.1 when left out.
        dp_statistics: means and variances ``noised`` (a tenth of epsilon), or made of the sites'
            ``bounds``, which spends nothing.
        epsilon, unit: of the budget.
        delta: of ``dp``, or of the budget.
        wait: ``open`` waits, live, until all who are invited (or ``quorum`` of them) have joined.
        resume: ``open`` goes on with the federation's newest stopped run.
        background: return at once; the run goes on.

    Raises:
        NotFoundError: no such federation; the nearest is in the sentence.
        ConflictError: it is closed, its tables do not fit together, or a run is going on.
    """
    session = sessions.require("looking at federations")
    client = session.client
    if name is None:
        return FederationList(client.federations.list(limit=_PAGE).items)
    if action is None:
        return _detail(session, name)
    if action == "create":
        if sites:
            _check_names(sites)
        client.federations.create(name, description=description)
        return _invited(session, name, sites) if sites else _detail(session, name)
    if action == "invite":
        return _invited(session, name, [*names, *(sites or ())])
    if action == "close":
        client.federations.close(name)
        return _detail(session, name, "It is closed: no new site and no new run.")
    if action == "budget":
        return _budget(session, name, epsilon, delta, unit)
    if action != "open":
        raise not_an_action(action, FEDERATION_ACTIONS, "a federation")
    if resume:
        run = _resumed(session, client.federations.get(name))
    else:
        _check_numbers(rounds=rounds, deadline=deadline, dp=dp)
        local = _local(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
        terms: dict[str, Any] = {
            "model": model or name,
            "rounds": rounds,
            "local": local,
            "strategy": strategy,
            "filters": filters_of(filters),
            "quorum": quorum,
            "deadline_s": deadline,
            "seed": seed,
        }
        wish = None
        if dp is not None:
            wish = DpWish(
                PrivacyWish(dp, delta, clip),
                unit_of(dp_unit),
                sample_rate,
                dp_statistics,
                batches=batch_size is not None,
            )
        elif sample_rate is not None:
            raise InvalidInputError(
                "--sample-rate belongs to --dp EPSILON; add for example --dp 3, or leave it out.",
                field="sample_rate",
            )
        run = _opened(session, name, positive, wish, terms, wait=wait)
    return run.start() if background else follow_run(run)


def _opened(
    session: sessions.Session,
    name: str,
    positive: str | None,
    wish: DpWish | None,
    terms: dict[str, Any],
    *,
    wait: bool,
) -> OpenRun:
    """A run over the sites that have joined, its weights sent and its first round open."""
    client = session.client
    federation = client.federations.get(name)
    _refuse_second(session, federation)
    preflight = (
        await_sites(client, name, terms["quorum"]) if wait else client.federations.preflight(name)
    )
    sites = described_sites(name, preflight, terms["quorum"])
    signature = agreed_signature(preflight, positive)
    if wish is not None:
        terms |= privacy_fields(wish, terms["rounds"], len(sites), terms["local"])
    plan = plan_of(name, sites, signature, **terms)
    if federation.status == "closed":
        client.federations.open(name)
    return OpenRun.create(client, plan)


def _detail(session: sessions.Session, name: str, said: str = "") -> FederationDetail:
    client = session.client
    federation = client.federations.get(name)
    return FederationDetail(
        federation,
        client.federations.preflight(name),
        _runs_of(session, federation),
        client.federations.privacy(name),
        said,
        [one.snapshot() for one in joined_to(name)],
    )


def _runs_of(session: sessions.Session, federation: Federation) -> list[Run]:
    found = session.client.runs.list(limit=_PAGE).items
    return [run for run in found if run.plan.federation == federation.name]


def _check_names(sites: Sequence[str]) -> None:
    twice = next((site for site in sites if list(sites).count(site) > 1), None)
    if twice is not None:
        raise InvalidInputError(f"Site {twice!r} is named twice; name it once.", field="sites")


def _invited(session: sessions.Session, name: str, sites: Sequence[str]) -> Invitations:
    if not sites:
        raise InvalidInputError(
            f"Whom? Name the sites: %ts_federations {name} invite north south.", field="sites"
        )
    _check_names(sites)
    federation = session.client.federations.get(name)
    if federation.status == "closed":
        raise ConflictError(
            f"Federation {name!r} is closed; start a run with %ts_federations {name} open to open "
            "it again."
        )
    invitations = session.client.federations.invite(name, sites)
    same_user = session.client.environment == "sandbox"
    command = f"%ts_join {name} --data df --target COLUMN"
    lines = [
        (
            one.participant,
            f"{command} --as {_quoted(one.participant)}" if same_user else command,
            one.token,
        )
        for one in invitations
    ]
    setting = [f"export {TOKEN_VARIABLE}={{token}}"]
    if not same_user:
        setting.insert(0, f"export TRUSTSTRAM_BASE_URL={session.client.base_url}")
    return Invitations(name, lines, setting=setting, same_user=same_user)


def _quoted(site: str) -> str:
    return site if site.replace("-", "").replace("_", "").isalnum() else repr(site)


def _budget(
    session: sessions.Session,
    name: str,
    epsilon: float | None,
    delta: float | None,
    unit: Unit | None,
) -> FederationDetail:
    if epsilon is None:
        return _detail(session, name)
    _check_numbers(epsilon=epsilon)
    given: dict[str, Any] = {} if unit is None else {"unit": unit}
    budget = SetBudget(epsilon=epsilon, delta=_DELTA if delta is None else delta, **given)
    session.client.federations.set_budget(name, budget)
    return _detail(
        session, name, f"Its budget is epsilon {epsilon:g} at delta {budget.delta:g} for each "
        f"{budget.unit}; a run beyond it is refused before it trains."
    )  # fmt: skip


def _refuse_second(session: sessions.Session, federation: Federation) -> None:
    for run in _runs_of(session, federation):
        if run.status in ("statistics", "training"):
            raise ConflictError(
                f"Run {run.name} of {federation.name!r} is in round "
                f"{min(run.round + 1, run.plan.rounds)} of {run.plan.rounds}; follow it with "
                f"%ts_runs {run.name} watch, or stop it first."
            )


def _resumed(session: sessions.Session, federation: Federation) -> OpenRun:
    for run in _runs_of(session, federation):
        if run.status == "stopped" and not run.plan.simulated:
            return OpenRun(session.client, session.client.runs.resume(run.name))
    raise NotFoundError(
        f"No run of {federation.name!r} is stopped; start one with %ts_federations "
        f"{federation.name} open."
    )


def _local(**given: Any) -> LocalTraining:
    _check_numbers(**given)
    return LocalTraining(**{name: value for name, value in given.items() if value is not None})


def _check_numbers(**given: float | None) -> None:
    for name, value in given.items():
        low, high = _LIMITS[name]
        if value is not None and not (low <= value <= high and value > 0):
            raise InvalidInputError(
                f"{name} is {value:g}; it goes from {f'{low:g}' if low else 'above 0'} to "
                f"{high:,.0f}.",
                field=name,
            )
