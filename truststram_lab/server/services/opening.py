"""Which round a run opens next, whom it asks, and what it waits for before that."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, insert, select, update

from truststram_lab.exceptions import PrivacyBudgetError
from truststram_lab.schemas.federation import CreateRun, RoundKind
from truststram_lab.schemas.privacy import RecordPlan
from truststram_lab.server.stores import outbox
from truststram_lab.server.stores.ids import new_id
from truststram_lab.server.stores.tables import participants, rounds, run_sites, runs, updates

from .budgets import reserve
from .presence import Presence
from .status import set_status, tell

__all__ = [
    "Opened",
    "declined_by",
    "declined_words",
    "hides_cohort",
    "last_round",
    "open_next",
    "roster",
    "stop_run",
    "wait_of",
    "wake_sites",
]

#: Seconds in which sites that declined may come back before a run stops for the want of them.
_DECLINED_WAIT_S = 5.0
#: Of what a site says for declining, so many characters are in a run's reason.
_WHY = 300

#: ``done``: there is no next round. ``waiting``: for sites. ``stopped``: it may not open.
Opened = Literal["opened", "waiting", "done", "stopped"]


@dataclass(frozen=True)
class _Next:
    kind: RoundKind
    training_number: int


def open_next(connection: Connection, run: Row[Any], plan: CreateRun, presence: Presence,
              now: str) -> Opened:  # fmt: skip
    """Open the round that follows the run's last one, if enough sites are there.

    Its budget is reserved in the same transaction, before anybody trains.
    """
    last = last_round(connection, run.id)
    sites = roster(connection, run.id, plan)
    there = _present(connection, sites, last, plan, presence)
    following = _following(plan, last)
    if (
        following is not None
        and following.kind == "evaluation"
        and not plan.quorum.cohort_size(len(there), evaluate=True)
    ):
        following = _after_evaluation(plan, following.training_number)
    if following is None:
        return "done"
    if len(there) < _needed(plan, following.kind, first=last is None):
        _wait(connection, run, plan)
        return "waiting"
    round_id = new_id("rnd")
    declined: set[str] = set()
    if following.kind == "initial":
        declined = set(declined_by(connection, run.id, "initial"))
    if declined.issuperset(site.principal_id for site in sites) and sites:
        reason = "no site gave parameters to begin with; start a run with initial weights."
        stop_run(connection, run, now, f"insufficient_updates: {reason}")
        return "stopped"
    cohort = _cohort(plan, following, sites, there, declined)
    if cohort is not None and not cohort and plan.central_privacy is None:
        _wait(connection, run, plan)
        return "waiting"
    _insert(connection, run, plan, round_id, following, last, cohort, now)
    if following.kind == "training" and plan.central_privacy is not None:
        _note_gone(connection, run.id, round_id, plan, there)
    noise = _statistics_noise(plan) if following.kind == "statistics" else None
    if plan.privacy is not None and (following.kind == "training" or noise is not None):
        number = following.training_number
        try:
            reserve(connection, run, plan.privacy, round_id, number, now, statistics_noise=noise)
        except PrivacyBudgetError as error:
            connection.execute(rounds.delete().where(rounds.c.id == round_id))
            stop_run(connection, run, now, error.message)
            return "stopped"
    told = {"number": following.training_number, "kind": following.kind}
    tell(connection, run, "round.opened", told, now)
    wake_sites(connection, run, plan)
    return "opened"


def _statistics_noise(plan: CreateRun) -> float | None:
    """The noise multiplier of the sites' moments; None where they spend nothing of a budget."""
    found = plan.config.get("statistics_noise")
    return float(found) if found is not None and isinstance(plan.privacy, RecordPlan) else None


def last_round(connection: Connection, run_id: str) -> Row[Any] | None:
    """The run's newest round; None before the first."""
    return connection.execute(
        select(rounds).where(rounds.c.run_id == run_id).order_by(rounds.c.number.desc()).limit(1)
    ).one_or_none()


def roster(connection: Connection, run_id: str, plan: CreateRun) -> list[Row[Any]]:
    """The run's sites in the order of every sum: the plan's, or by name where anybody may come."""
    order = run_sites.c.name if plan.open_roster else run_sites.c.position
    return list(
        connection.execute(select(run_sites).where(run_sites.c.run_id == run_id).order_by(order))
    )


def hides_cohort(plan: CreateRun) -> bool:
    """Whether who is in a round must not be told: privacy by a secret sample depends on it."""
    central = plan.central_privacy
    return central is not None and central.cohort_rate < 1


def stop_run(connection: Connection, run: Row[Any], now: str, reason: str) -> None:
    """Stop an active run for a reason; it can be resumed."""
    values = {"resume_status": run.status, "reason": reason, "waiting_until_s": None}
    set_status(connection, run, "stopped", now, **values)
    tell(connection, run, "run.stopped", {"reason": reason}, now)


def wake_sites(connection: Connection, run: Row[Any], plan: CreateRun) -> None:
    """Tell the sites that wait for work to look again."""
    if plan.open_roster:
        query = select(participants.c.principal_id).where(
            participants.c.federation_id == run.federation_id
        )
    else:
        query = select(run_sites.c.principal_id).where(run_sites.c.run_id == run.id)
    for principal_id in connection.execute(query).scalars():
        outbox.wake(connection, run.organisation_id, outbox.site_topic(principal_id))


def _present(
    connection: Connection,
    sites: Sequence[Row[Any]],
    last: Row[Any] | None,
    plan: CreateRun,
    presence: Presence,
) -> set[str]:
    ids = [site.principal_id for site in sites]
    if plan.simulated:
        return set(ids)
    lately: set[str] = set()
    if last is not None:
        query = select(updates.c.principal_id).where(updates.c.round_id == last.id)
        lately = set(connection.execute(query).scalars())
    return presence.present(ids, lately)


def _following(plan: CreateRun, last: Row[Any] | None) -> _Next | None:
    if last is None and plan.signature is not None:
        return _Next("statistics", 0)
    if (last is None or last.kind == "statistics") and plan.initial_weights_sha256 is None:
        return _Next("initial", 0)
    if last is not None and last.kind == "initial" and last.result_sha256 is None:
        return _Next("initial", 0)
    if last is None or last.kind in ("statistics", "initial"):
        return _Next("training", 1)
    done = int(last.training_number)
    if last.kind == "evaluation":
        return _after_evaluation(plan, done)
    if plan.evaluation == "every" or (plan.evaluation == "final" and done == plan.rounds):
        return _Next("evaluation", done)
    return _after_evaluation(plan, done)


def _after_evaluation(plan: CreateRun, done: int) -> _Next | None:
    return _Next("training", done + 1) if done < plan.rounds else None


def _needed(plan: CreateRun, kind: RoundKind, *, first: bool) -> int:
    quorum = plan.quorum
    if plan.simulated or (plan.central_privacy is not None and not first):
        return 0
    if first:
        return max(quorum.min_available, 1)
    if kind == "training":
        return max(quorum.min_fit, plan.strategy.least_updates)
    return 1 if kind != "evaluation" else 0


def declined_by(connection: Connection, run_id: str, *kinds: RoundKind) -> dict[str, str]:
    """Ids of the sites that declined a round of these kinds, and what each said last."""
    query = (
        select(rounds.c.declined)
        .where(rounds.c.run_id == run_id, rounds.c.kind.in_(kinds))
        .order_by(rounds.c.number)
    )
    found: dict[str, str] = {}
    for said in connection.execute(query).scalars():
        found |= said or {}
    return found


def declined_words(names: Mapping[str, str], declined: Mapping[str, str], most: int = 5) -> str:
    """Who declined and why, for a run's reason; empty where nobody did.

    Args:
        names: of the sites, by id.
    """
    told = []
    for one, why in list(declined.items())[:most]:
        short = why if len(why) <= _WHY else f"{why[:_WHY]}..."
        told.append(names[one] + (f" ({short.rstrip('.')})" if short else ""))
    more = f" and {len(declined) - most} more" if len(declined) > most else ""
    return f", declined: {', '.join(told)}{more}" if told else ""


def _cohort(
    plan: CreateRun,
    following: _Next,
    sites: Sequence[Row[Any]],
    there: set[str],
    declined: set[str],
) -> list[str] | None:
    """Ids of those who are asked, in the order of the sum; None is everybody in the plan."""
    ids = [site.principal_id for site in sites]
    if plan.central_privacy is not None and following.kind == "training":
        # numpy is loaded on first use: the platform listens before that
        from truststram_lab.learning.privacy.mechanisms import cohort

        return [ids[place] for place in cohort(len(ids), plan.central_privacy.cohort_rate)]
    able = [site for site in sites if site.principal_id in there]
    if following.kind == "statistics":
        return [site.principal_id for site in able] if plan.open_roster else None
    if following.kind == "initial":
        able = [site for site in able if site.principal_id not in declined]
        return [site.principal_id for site in able[:1]]
    size = plan.quorum.cohort_size(len(able), evaluate=following.kind == "evaluation")
    if size == len(ids) and not plan.open_roster:
        return None
    chosen = _drawn(plan.seed, following, able, size)
    return [one for one in ids if one in chosen]


def _drawn(seed: int, following: _Next, able: Sequence[Row[Any]], size: int) -> set[str]:
    """A sample that the plan's seed decides, by the sites' names: the same on every platform."""

    def lot(site: Row[Any]) -> bytes:
        text = f"{seed}/{following.kind}/{following.training_number}/{site.name}"
        return hashlib.sha256(text.encode()).digest()

    return {site.principal_id for site in sorted(able, key=lot)[:size]}


def wait_of(connection: Connection, run_id: str, plan: CreateRun) -> float | None:
    """Seconds that the run waits for enough sites; None waits without end."""
    wait_s = plan.quorum.wait_s
    if declined_by(connection, run_id, "statistics", "training"):
        # They may not come back, and a run that waits without end says nothing.
        return _DECLINED_WAIT_S if wait_s is None else min(wait_s, _DECLINED_WAIT_S)
    return wait_s


def _wait(connection: Connection, run: Row[Any], plan: CreateRun) -> None:
    wait_s = wait_of(connection, run.id, plan)
    if wait_s is not None and run.waiting_until_s is None:
        until = time.time() + wait_s
        connection.execute(update(runs).where(runs.c.id == run.id).values(waiting_until_s=until))


def _note_gone(
    connection: Connection, run_id: str, round_id: str, plan: CreateRun, there: set[str]
) -> None:
    """Who declined and left counts as zero in a round of all sites, and is not waited for."""
    if hides_cohort(plan):
        return
    declined = declined_by(connection, run_id, "statistics", "training")
    gone = {one: why for one, why in declined.items() if one not in there}
    if gone:
        connection.execute(update(rounds).where(rounds.c.id == round_id).values(declined=gone))


def _insert(
    connection: Connection,
    run: Row[Any],
    plan: CreateRun,
    round_id: str,
    following: _Next,
    last: Row[Any] | None,
    cohort: list[str] | None,
    now: str,
) -> None:
    model = None
    if following.kind in ("training", "evaluation"):
        model = _model(connection, run, plan, following.kind)
    deadline = plan.quorum.deadline_s
    values: dict[str, Any] = {
        "id": round_id,
        "run_id": run.id,
        "number": 0 if last is None else last.number + 1,
        "training_number": following.training_number,
        "kind": following.kind,
        "status": "open",
        "model_sha256": model,
        "deadline_at_s": None if deadline is None else time.time() + deadline,
        "created_at": now,
    }
    if cohort is not None:
        values["cohort"] = cohort
    connection.execute(insert(rounds).values(values))
    if run.waiting_until_s is not None:
        connection.execute(update(runs).where(runs.c.id == run.id).values(waiting_until_s=None))


def _model(connection: Connection, run: Row[Any], plan: CreateRun, kind: RoundKind) -> str:
    """What a round's sites start from: the newest global model."""
    newest = connection.execute(
        select(rounds.c.kind, rounds.c.result_sha256, rounds.c.next_model_sha256)
        .where(rounds.c.run_id == run.id, rounds.c.kind.in_(("initial", "training")))
        .order_by(rounds.c.number.desc())
        .limit(1)
    ).one_or_none()
    if newest is None:
        return str(plan.initial_weights_sha256)
    if kind == "training" and newest.next_model_sha256 is not None:
        return str(newest.next_model_sha256)
    return str(newest.result_sha256)
