"""A run's part in its owner's privacy ledger: reserved round by round, shown as it grows."""

from __future__ import annotations

import json
import math
import uuid
from datetime import UTC, datetime
from pathlib import Path

from truststram_lab import config
from truststram_lab.exceptions import PrivacyBudgetError
from truststram_lab.learning.filters.notes import order_notes
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.learning.privacy.statements import epsilon_text, no_guarantee, statement
from truststram_lab.schemas.federation import CreateRun, Run
from truststram_lab.schemas.filters import GaussianNoise, GradientClip
from truststram_lab.schemas.privacy import (
    Budget,
    BudgetKey,
    ClientPlan,
    EntryKind,
    GaussianUse,
    LocalPlan,
    RecordPlan,
)
from truststram_lab.schemas.run_privacy import RunPrivacy

from .bounds import Bounds
from .owner_ledger import OwnerLedger
from .participation.files import folder_name, private_folder, write_whole
from .participation.terms import STATISTICS_NOISE
from .record_privacy import EPSILON

__all__ = ["RunSpending", "check_limit", "load_bounds", "store_bounds", "unannounced"]

#: Filters name no delta; this one is usual where nothing is known of the sites.
_FILTER_DELTA = 1e-5


def ledger_of(plan: CreateRun) -> OwnerLedger | None:
    """The ledger of the plan's data set; None for a plan without privacy or data of its own."""
    if plan.privacy is None or plan.source is None:
        return None
    key = BudgetKey(
        dataset_sha256=plan.source.sha256,
        unit=plan.privacy.unit,
        adjacency=plan.privacy.adjacency,
    )
    return OwnerLedger(key)


def planned_uses(plan: CreateRun) -> list[GaussianUse]:
    """All that the run will release, its statistics round included."""
    assert plan.privacy is not None, "the caller looked"
    return [*_statistics_uses(plan), plan.privacy.use(plan.rounds)]


def unannounced(plan: CreateRun) -> Run:
    """A run that no platform has, for its lines in the ledger."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Run(
        id=f"run_{uuid.uuid4().hex}",
        name=plan.model,
        status="training",
        plan=plan,
        round=0,
        created_at=now,
        updated_at=now,
    )


def check_limit(plan: CreateRun, limit: float | None) -> None:
    """Set the data set's limit where one is given, and refuse a run that would not fit under it.

    Raises:
        PrivacyBudgetError: before anything trains; the sentence has the numbers.
    """
    ledger = ledger_of(plan)
    if ledger is None:
        return
    assert plan.privacy is not None, "it has a ledger"
    if limit is not None:
        ledger.set_limit(Budget(epsilon=limit, delta=plan.privacy.delta))
    decision = ledger.consider(planned_uses(plan), plan.privacy.delta)
    if not decision.allowed:
        raise PrivacyBudgetError(
            f"{decision.sentence} Raise the limit of this data with --dp-limit, or lower --dp.",
            spent=decision.spent,
            asked=decision.asked,
            budget=decision.budget.epsilon,
            fits=decision.fits_steps,
        )


class RunSpending:
    """Reserves, releases and reports what one run spends; None of it without a privacy plan."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._plan = run.plan
        self._ledger = ledger_of(run.plan)

    def reserve(self, number: int) -> None:
        """Take a round's epsilon before any of its noise is drawn; again it changes nothing.

        Raises:
            PrivacyBudgetError: the data set's limit, or the run's own, would be passed.
        """
        uses = self._uses(number)
        if self._ledger is None or not uses:
            return
        assert self._plan.privacy is not None, "it has a ledger"
        delta = self._plan.privacy.delta
        self._check_own(number, uses, delta)
        purpose = f"{self._run.name}, round {number}"
        kind: EntryKind = "training" if number else "statistics"
        self._ledger.reserve(self._entry(number), purpose, uses, delta, kind)

    def release(self, number: int) -> None:
        """Note that the round's noised updates have begun to leave."""
        if self._ledger is not None and self._uses(number):
            self._ledger.release(self._entry(number))

    def report(self, number: int) -> RunPrivacy | None:
        """How it stands in round ``number``; None for a run that adds no noise."""
        plan = self._plan.privacy
        if plan is None:
            return noise_of_filters(self._plan, number)
        if self._ledger is None:
            return None
        mine = self._ledger.uses_of(f"{self._run.id}/")
        budget = self._budget()
        done = sum(
            entry.id.startswith(f"{self._run.id}/") and not entry.id.endswith("/0")
            for entry in self._ledger.entries()
        )
        limit = self._ledger.limit
        stated = statement(plan, done, tight=False, trust=self._plan.trust) if done else None
        epsilon = account(mine, plan.delta).epsilon
        if stated is not None and self._statistics_counted():
            # The plan's own statement does not know the statistics round.
            text = stated.text.replace(
                f"epsilon {epsilon_text(stated.epsilon)} ",
                f"epsilon {epsilon_text(epsilon)} (with its noised means) ",
            )
            stated = stated.model_copy(update={"epsilon": epsilon, "text": text})
        return RunPrivacy(
            statement=stated,
            epsilon=_finite(epsilon),
            budget=budget,
            before=_finite(self._ledger.spent(plan.delta, but=f"{self._run.id}/")),
            together=_finite(self._ledger.spent(plan.delta)),
            limit=None if limit is None else limit.epsilon,
            statistics=_statistics_words(self._plan),
        )

    def _statistics_counted(self) -> bool:
        return bool(self._uses(0))

    def _check_own(self, number: int, uses: list[GaussianUse], delta: float) -> None:
        """A round more than the plan has would pass the run's own epsilon."""
        assert self._ledger is not None, "the caller looked"
        others = [
            use
            for entry in self._ledger.entries()
            if entry.id.startswith(f"{self._run.id}/") and entry.id != self._entry(number)
            for use in entry.uses
        ]
        spent, after = (account(part, delta).epsilon for part in (others, [*others, *uses]))
        budget = self._budget()
        # The planner ends within a thousandth of the budget, on either accountant.
        if after > budget * 1.001:
            raise PrivacyBudgetError(
                f"Round {number} of run {self._run.name} would take it over its epsilon of "
                f"{budget:g}: {epsilon_text(spent)} is spent, with this round "
                f"{epsilon_text(after)}; start a run with a larger --dp.",
                spent=spent,
                asked=account(uses, delta).epsilon,
                budget=budget,
            )

    def _budget(self) -> float:
        assert self._plan.privacy is not None, "the caller looked"
        named = self._plan.config.get(EPSILON)
        if named is not None:
            return float(named)
        return account(planned_uses(self._plan), self._plan.privacy.delta).epsilon

    def _uses(self, number: int) -> list[GaussianUse]:
        if self._plan.privacy is None:
            return []
        return [self._plan.privacy.use()] if number else _statistics_uses(self._plan)

    def _entry(self, number: int) -> str:
        return f"{self._run.id}/{number}"


def noise_of_filters(plan: CreateRun, rounds: int) -> RunPrivacy | None:
    """What noise that is a filter of its own is worth after ``rounds`` rounds, however little.

    It is local noise on one site's update, so its sensitivity is twice the clip before it.
    """
    kinds = [type(found) for found in plan.filters]
    if GaussianNoise not in kinds or not rounds:
        return None
    first = kinds.index(GaussianNoise)
    noise = plan.filters[first]
    assert isinstance(noise, GaussianNoise), "its kind says so"
    clips = [
        found.max_norm
        for found in plan.filters[:first]
        if isinstance(found, GradientClip) and not found.per_tensor
    ]
    local = LocalPlan(
        clip=min(clips, default=1.0), sigma=noise.sigma, rounds=plan.rounds, delta=_FILTER_DELTA
    )
    codes = {note.code for note in order_notes(plan.filters)}
    if not clips or codes & {"noise_without_clip", "clip_per_tensor"}:
        found = no_guarantee(local, "noise without a clip of the whole update before it")
    elif "quantized_before_noise" in codes:
        found = no_guarantee(local, "rounding between clip and noise can carry it over the bound")
    else:
        found = statement(local, min(rounds, plan.rounds), tight=False)
    return RunPrivacy(statement=found, epsilon=found.epsilon, before=0.0, together=found.epsilon)


def _statistics_uses(plan: CreateRun) -> list[GaussianUse]:
    noise = plan.config.get(STATISTICS_NOISE)
    return [] if noise is None else [GaussianUse(noise_multiplier=float(noise))]


def _statistics_words(plan: CreateRun) -> str:
    if plan.signature is None:
        return "No means and variances were exchanged; how inputs were scaled is outside epsilon."
    if isinstance(plan.privacy, ClientPlan):
        return (
            "The sites' means and variances went without noise and are outside epsilon; "
            "clipping and noise begin with the first round."
        )
    if not isinstance(plan.privacy, RecordPlan):
        return ""
    noise = plan.config.get(STATISTICS_NOISE)
    if noise is None:
        return (
            "Inputs are scaled by the bounds that the owner gave, not by the rows, which spends "
            "nothing."
        )
    return (
        f"Means and variances were noised (noise multiplier {float(noise):.3g}) and are part of "
        "epsilon."
    )


def _finite(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None


# The bounds, which never leave ----------------------------------------------------------


def _bounds_path(run_id: str) -> Path:
    return config.home() / "ledger" / "bounds" / f"{folder_name(run_id)}.json"


def store_bounds(run_id: str, bounds: Bounds) -> None:
    """Keep a run's bounds on this computer, so that another kernel of the owner can resume it."""
    path = _bounds_path(run_id)
    private_folder(path.parent)
    write_whole(path, json.dumps(bounds).encode())


def load_bounds(run_id: str) -> Bounds | None:
    """The bounds of a run; None where this computer has none."""
    try:
        found = json.loads(_bounds_path(run_id).read_bytes())
    except FileNotFoundError:
        return None
    return {name: (float(low), float(high)) for name, (low, high) in found.items()}
