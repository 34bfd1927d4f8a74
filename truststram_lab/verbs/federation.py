"""Simulate a federation on data one has, and manage runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from truststram_lab.exceptions import ConflictError, InvalidInputError
from truststram_lab.federated import FederatedRun
from truststram_lab.federated.departures import Departures
from truststram_lab.federated.draft import Draft
from truststram_lab.federated.preparation import prepare_again
from truststram_lab.federated.replay import replay_rounds
from truststram_lab.federated.watch import WatchedRun
from truststram_lab.preprocessing.demo import load_demo
from truststram_lab.schemas.federation import Run
from truststram_lab.schemas.filters import Filter
from truststram_lab.schemas.personal import AnyPersonal
from truststram_lab.schemas.strategies import AnyStrategy

from . import session as sessions
from .choices import not_an_action
from .comparing import RunComparison, compare
from .contributing import RunContributions, RunWithout, contribution
from .dealing import Dealt
from .drafting import drafted
from .live import follow
from .results import RunList, RunReplay, RunSent

if TYPE_CHECKING:
    import pandas as pd

    from truststram_lab.federated.open_run import OpenRun

__all__ = ["RUN_ACTIONS", "announced", "federate", "runs"]

RUN_ACTIONS = ("watch", "stop", "resume", "sent", "replay", "contribution")


def federate(
    data: str | pd.DataFrame,
    *,
    target: str | None = None,
    name: str | None = None,
    clients: int = 5,
    rounds: int = 10,
    split: str = "dirichlet:0.5",
    by: str | None = None,
    positive: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    background: bool = False,
    allow_one_class: bool = False,
    label: str = "df",
    strategy: str | Mapping[str, Any] | AnyStrategy = "fedavg",
    filters: Sequence[str | Mapping[str, Any] | Filter] = (),
    dp: float | None = None,
    delta: float | None = None,
    clip: float = 1.0,
    dp_unit: str = "record",
    dp_limit: float | None = None,
    bounds: Mapping[str, Any] | None = None,
    fraction: float | None = None,
    drop: float | None = None,
    stragglers: float | None = None,
    hostile: str | None = None,
    personal: str | AnyPersonal | None = None,
    dry_run: bool = False,
) -> FederatedRun | Dealt:
    """Train one model across simulated sites on this kernel's device, and deploy it.

    Args:
        data: the name of a demo data set (``breast-cancer``, ``digits``) or a DataFrame.
        target: the column to predict; needed for a DataFrame.
        name: what to call the model; else the demo's name, or the variable's.
        clients: sites to deal the rows to. More than 20 are virtual clients of one host, which
            trains them all at once and pushes one update a round.
        rounds: training rounds; before them one exchange of means and variances.
        split: ``dirichlet:ALPHA``, the label skew between the sites; ``iid``, ``shards:N`` or
            ``quantity:ALPHA``, the size skew.
        by: deal by this column's values, instead.
        positive: the class that is looked for, where there are two.
        epochs, batch_size, learning_rate: local training; None takes the tested defaults.
        seed: makes the run reproducible on one machine.
        background: return at once; the run goes on in this kernel.
        allow_one_class: accept sites whose rows all have one class.
        label: what the DataFrame is called, for the record.
        strategy: how updates become one model: ``fedavg``, ``fedprox:mu=0.1``, ``fedadam``, ...
        filters: what is done to each update before it leaves, in order: texts such as
            ``gradient_clip:max_norm=1.0``, mappings with ``type``, or models.
        dp: the epsilon that the run may spend; each row of each site is protected by it.
        delta: of the guarantee; one tenth of 1 / (rows of the smallest site) when left out.
        clip: largest norm of one row's gradient (of one site's update with ``client``).
        dp_unit: who is hidden: ``record`` (one row) or ``client`` (a whole site).
        dp_limit: the most that all runs may ever spend on this data; stays set.
        bounds: numeric column -> (least, greatest possible value), needed with ``dp`` for a
            DataFrame; they stay in this kernel.
        fraction: share of the clients that each round asks; this and the next are a host's.
            With ``dp_unit`` client it is each client's chance, drawn in secret.
        drop: chance of a client to send nothing in a round.
        stragglers: chance of a client to manage only part of its epochs.
        hostile: share of clients that attack, and how: ``0.2:sign_flip``, ``0.2:label_flip``,
            ``0.2:scale=10``.
        personal: each client also has a model of its own, ``ditto:lambda=0.1`` or
            ``fedper:head=LAYER``; it is scored beside the others and goes with the run.
        dry_run: deal the rows, show who has what, and train nothing; nobody need be signed in.

    Returns:
        The run; its card shows alone, federated and pooled. With ``dry_run`` who has what.

    Raises:
        NotSignedInError, InvalidInputError: before anything trains.
        PrivacyBudgetError: the run would pass ``dp_limit``; nothing trained.
        RunStoppedError: it was interrupted; ``%ts_runs NAME resume`` goes on.
    """
    session = None if dry_run else sessions.require("federating")
    draft = drafted(
        data, target=target, name=name, clients=clients, rounds=rounds, split=split, by=by,
        positive=positive, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
        seed=seed, allow_one_class=allow_one_class, label=label, strategy=strategy,
        filters=filters, dp=dp, delta=delta, clip=clip, dp_unit=dp_unit, dp_limit=dp_limit,
        bounds=bounds, fraction=fraction, drop=drop, stragglers=stragglers, hostile=hostile,
        personal=personal,
    )  # fmt: skip
    if session is None:
        return Dealt(draft.prepared)
    run = announced(session, draft)
    return run.start() if background else follow(run, begin=run.start)


def announced(session: sessions.Session, draft: Draft) -> FederatedRun:
    """The run on the platform; it takes the place of one of this kernel that trains its model."""
    former = session.active_run(draft.plan.model)
    if former is not None:
        # The cell was run again: the new run takes the old one's place.
        former.stop()
    run = FederatedRun.announce(session.client, draft)
    session.runs[run.name] = run
    return run


def runs(
    name: str | None = None,
    action: str | None = None,
    *others: str,
    data: pd.DataFrame | None = None,
    number: int | None = None,
    **contributing: Any,
) -> (
    RunList
    | Run
    | FederatedRun
    | OpenRun
    | WatchedRun
    | RunSent
    | RunReplay
    | RunComparison
    | RunContributions
    | RunWithout
):
    """All runs; with a name, one run; with an action, do that.

    Args:
        name: such as ``breast-cancer-3``; ``compare`` shows the runs named after it side by side.
        action: ``watch`` follows it live from any kernel; ``stop`` ends it within two
            seconds; ``resume`` goes on in this kernel, where it was stopped; ``sent`` shows every
            byte that left this computer for it; ``replay`` computes its rounds again from the
            stored updates and compares; ``contribution`` shows what each site brought.
        data: the DataFrame, to resume a run of a kernel that is gone, or the rows that score
            contributions.
        others: more runs to compare.
        number: the only round to replay; all of them when left out.
        contributing: for ``contribution``, as ``verbs.contribution`` takes them.

    Raises:
        RunNotFoundError: nothing has that name; the nearest are in the sentence.
        ConflictError: the run is in another state.
    """
    session = sessions.require("looking at runs")
    if name == "compare":
        return compare(*([] if action is None else [action]), *others)
    if name is None:
        return RunList(session.client.runs.list().items)
    if action is None:
        return session.runs.get(name) or WatchedRun(session.client, session.client.runs.get(name))
    if action == "watch":
        mine = session.runs.get(name)
        if mine is not None and mine.active:
            return follow(mine)
        return _watch(WatchedRun(session.client, session.client.runs.get(name)))
    if action == "stop":
        mine = session.runs.get(name)
        if mine is not None:
            return mine.stop()
        return WatchedRun(session.client, session.client.runs.stop(name))
    if action == "resume":
        if not session.client.runs.get(name).plan.simulated:
            from truststram_lab.federated.open_run import OpenRun

            from .site_view import follow_run

            return follow_run(OpenRun(session.client, session.client.runs.resume(name)))
        mine = session.runs.get(name) or _rebuilt(session, name, data)
        session.runs[name] = mine
        return follow(mine, begin=mine.resume)
    if action == "sent":
        run = session.client.runs.get(name)
        return RunSent(run, Departures(run.id).entries())
    if action == "replay":
        return _replayed(session, name, number)
    if action == "contribution":
        return contribution(name, data=data, **contributing)
    raise not_an_action(action, RUN_ACTIONS, "a run")


def _replayed(session: sessions.Session, name: str, number: int | None) -> RunReplay:
    run = session.client.runs.get(name)
    rounds = session.client.runs.rounds(name).items
    found = replay_rounds(run.plan, rounds, session.client.blobs.get, only=number)
    return RunReplay(run, list(found))


def _watch(watched: WatchedRun) -> WatchedRun:
    from truststram_lab.widgets import view_of

    view = view_of(
        watched,
        hint=f"Kernel > Interrupt looks away; stop the run with %ts_runs {watched.name} stop",
    )
    try:
        view.show()
        watched.follow(tick=view.refresh)
    except KeyboardInterrupt:
        # Looking away does not stop somebody else's run.
        watched.close()
    finally:
        view.close()
    return watched


def _rebuilt(session: sessions.Session, name: str, data: pd.DataFrame | None) -> FederatedRun:
    """The run of a kernel that is gone, on the same rows dealt to the same sites again."""
    run = session.client.runs.get(name)
    source = run.plan.source
    if run.plan.hosted is not None and run.plan.signature is None:
        raise ConflictError(
            f"Run {name} is of simulate(), and only its kernel had the module and the rows; call "
            "simulate() again with the same arguments, which gives the same bits."
        )
    if source is None:
        raise ConflictError(
            f"Run {name} was no simulation, so its sites resume it themselves; "
            f"watch it with %ts_runs {name} watch."
        )
    if data is None and source.kind != "demo":
        raise InvalidInputError(
            f"Run {name} trained on the DataFrame {source.name!r} of another kernel; "
            f"give it again: %ts_runs {name} resume --data {source.name}.",
            field="data",
        )
    frame = load_demo(source.name).frame if data is None else data
    return FederatedRun(session.client, run, prepare_again(frame, run.plan))
