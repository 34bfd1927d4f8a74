"""What a site's own rows have spent, over all its runs and federations, counted by the site.

The platform keeps a budget too, but a site need not believe it: this ledger lies in the site's
``TRUSTSTRAM_HOME``, and what would pass the site's limit is declined before anything trains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.learning.privacy.ledger import Decision
from truststram_lab.learning.privacy.statements import epsilon_text, statement
from truststram_lab.schemas.federation import Run
from truststram_lab.schemas.privacy import (
    Adjacency,
    Budget,
    BudgetKey,
    ClientPlan,
    EntryKind,
    GaussianUse,
    RecordPlan,
    Unit,
)
from truststram_lab.schemas.sites import SiteSpent

from .joined_data import JoinedData, note_joined
from .owner_ledger import OwnerLedger
from .participation.terms import STATISTICS_NOISE, Terms

__all__ = ["Claim", "SiteSpending", "claim", "costs_of", "uses_of_round"]

#: A limit is accounted at this delta, or at a tenth of 1 / rows where that is less: a delta that
#: the federation chose could make every epsilon small.
_DELTA = 1e-5
_KEYS: tuple[tuple[Unit, Adjacency], ...] = (
    ("record", "add-or-remove"),
    ("client", "add-or-remove"),
    ("client", "replace"),
)


def uses_of_round(terms: Terms) -> list[GaussianUse]:
    """What a round releases of the site's rows under noise; empty for one that is outside it.

    A round of a secret cohort counts as all rounds of its run: who is not drawn is not told,
    and amplification was counted on that.
    """
    plan = terms.privacy
    if plan is None:
        return []
    if terms.kind == "statistics":
        noise = terms.statistics_noise if isinstance(plan, RecordPlan) else None
        return [] if noise is None else [GaussianUse(noise_multiplier=noise)]
    if terms.kind != "training":
        return []
    return [plan.use(plan.rounds if _is_sampled(terms) else 1)]


@dataclass(frozen=True)
class Claim:
    """A run's privacy as a site's card says it: in words, so far, and after all rounds."""

    text: str
    epsilon: float | None
    budget: float | None


def claim(terms: Terms) -> Claim:
    """What the terms' plan is worth, statistics included where they have noise.

    The caller has looked that there is a plan.
    """
    plan = terms.privacy
    assert plan is not None, "the caller looked"
    after = statement(plan, tight=False)
    noise = terms.statistics_noise if isinstance(plan, RecordPlan) else None
    if noise is None:
        so_far = statement(plan, rounds=terms.number, tight=False).epsilon if terms.number else 0.0
        return Claim(f"{after.text} {after.outside}", so_far, after.epsilon)
    moments = GaussianUse(noise_multiplier=noise)
    whole = account([moments, plan.use(plan.rounds)], plan.delta).epsilon
    done = [plan.use(terms.number)] if terms.number else []
    text = after.text.replace(
        f"epsilon {epsilon_text(after.epsilon)} ",
        f"epsilon {epsilon_text(whole)} (with its noised means) ",
    )
    so_far = account([moments, *done], plan.delta).epsilon
    return Claim(f"{text} {after.outside}", _finite(so_far), _finite(whole))


def _finite(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None


class SiteSpending:
    """The ledgers of one site's data set, one for each unit and adjacency.

    Args:
        dataset_sha256: fingerprint of the site's table, the same in every federation.
        rows: of the table, for the delta of the limit.
        limit: the most epsilon that may ever be spent on it; None leaves a former limit.
        folder: ``TRUSTSTRAM_HOME/ledger`` by default.

    Raises:
        InvalidInputError: ``limit`` is no positive number.
    """

    def __init__(
        self,
        dataset_sha256: str,
        rows: int,
        *,
        limit: float | None = None,
        folder: Path | None = None,
    ) -> None:
        if limit is not None and not (math.isfinite(limit) and limit > 0):
            raise InvalidInputError(
                f"--dp-limit {limit:g} is no epsilon; give a number above 0, for example "
                "--dp-limit 3.",
                field="dp_limit",
            )
        self._data = JoinedData(dataset_sha256, rows)
        self._delta = min(_DELTA, 1 / (10 * max(rows, 1)))
        self._limit = limit
        self._ledgers = {
            key: OwnerLedger(
                BudgetKey(dataset_sha256=dataset_sha256, unit=key[0], adjacency=key[1]), folder
            )
            for key in _KEYS
        }

    def join(self, place: str, federation: str) -> None:
        """Note that the data takes part in ``federation`` on the platform ``place``, and store
        the limit that was given, for this run and for all later ones."""
        note_joined(place, federation, self._data)
        self.keep_limit()

    def keep_limit(self) -> None:
        """Store the limit that was given, if one was."""
        if self._limit is not None:
            budget = Budget(epsilon=self._limit, delta=self._delta)
            for ledger in self._ledgers.values():
                ledger.set_limit(budget)

    def objection(self, terms: Terms) -> str | None:
        """Why the round would spend too much; None if it fits, or spends nothing."""
        uses = uses_of_round(terms)
        if not uses:
            return None
        decision = self._ledger(terms).consider(uses, self._delta, but=self._entry_id(terms))
        if decision.allowed:
            return None
        return (
            f"This site's own ledger refuses the {terms.kind} round for its data: "
            f"{decision.sentence} The site may raise its limit with --dp-limit."
        )

    def reserve(self, terms: Terms) -> None:
        """Take what the round spends, before its noise is drawn; on disk when this returns.

        The same round again, after a crash before anything was sent, is not charged twice. One
        whose update was on its way is: a second update of it is a second release.

        Raises:
            PrivacyBudgetError: another process of the site spent what was left.
        """
        uses = uses_of_round(terms)
        if not uses:
            return
        purpose = f"{terms.kind} round {terms.number} of run {terms.run}"
        kind: EntryKind = "statistics" if terms.kind == "statistics" else "training"
        entry_id = self._entry_id(terms)
        self._ledger(terms).reserve(entry_id, purpose, uses, self._delta, kind)

    def reserve_attributions(self, explanation_id: str, use: GaussianUse, purpose: str) -> None:
        """Take what noised attributions of these rows spend, record-level, before the noise is
        drawn; on disk when this returns. ``release(explanation_id)`` notes that they leave.

        The same explanation again, before it left, is not charged twice; made again afterwards,
        it is another release.

        Args:
            explanation_id: without ``/`` and ``#``.
            use: noise for the L2 sensitivity to one row more or less; each row's attributions
                are clipped before they are summed.
            purpose: what is explained for whom, for the ledger's reader.

        Raises:
            PrivacyBudgetError: it does not fit under the limit; the sentence has the numbers.
            InvalidInputError: there is no such id, or no noise.
        """
        if not explanation_id or set("/#") & set(explanation_id):
            raise InvalidInputError(
                f"{explanation_id!r} is no id of an explanation; leave out / and #.",
                field="explanation_id",
            )
        if not use.noise_multiplier:
            raise InvalidInputError(
                "Attributions without noise show single rows, whatever is clipped; give a noise "
                "multiplier above 0.",
                field="noise_multiplier",
            )
        ledger = self._ledgers["record", "add-or-remove"]
        entry_id = _next_id(ledger, f"attributions/{explanation_id}")
        ledger.reserve(entry_id, purpose, [use], self._delta, "attributions")

    def release(self, round_id: str) -> None:
        """Note that the round's update, or the explanation's attributions, leave now; to be
        called before the first byte does."""
        for ledger in self._ledgers.values():
            for entry in ledger.entries():
                if entry.state == "reserved" and _round_of(entry.id) == round_id:
                    ledger.release(entry.id)

    def spent(self, unit: Unit, adjacency: Adjacency = "add-or-remove") -> SiteSpent:
        """How the data set stands in one unit, over all runs and federations."""
        ledger = self._ledgers[unit, adjacency]
        limit = ledger.limit
        if limit is None and self._limit is not None:  # not stored yet: a dry run stores nothing
            limit = Budget(epsilon=self._limit, delta=self._delta)
        delta = self._delta if limit is None else limit.delta
        epsilon = ledger.spent(delta)
        named = None if limit is None else limit.epsilon
        left = None if named is None else max(0.0, named - epsilon)
        of = "no limit set" if named is None else f"of {named:g}"
        number = len(ledger.entries())
        text = (
            f"This site's own ledger of these rows, {unit}-level ({adjacency}): epsilon "
            f"{epsilon_text(epsilon)} spent ({of}) at delta {delta:g} in {number} "
            f"{'release' if number == 1 else 'releases'} over all federations, accounted by RDP."
        )
        return SiteSpent(
            unit=unit,
            adjacency=adjacency,
            epsilon=epsilon,
            limit=named,
            remaining=left,
            delta=delta,
            releases=number,
            text=text,
        )

    def all_spent(self) -> list[SiteSpent]:
        """Every unit in which something was spent; record-level where nothing was."""
        found = [self.spent(*key) for key, ledger in self._ledgers.items() if ledger.entries()]
        return found or [self.spent("record")]

    def consider(self, unit: Unit, adjacency: Adjacency, uses: list[GaussianUse]) -> Decision:
        """Whether ``uses`` would fit under the limit beside all that is spent; changes nothing."""
        limit = self.spent(unit, adjacency).limit
        budget = None if limit is None else Budget(epsilon=limit, delta=self._delta)
        return self._ledgers[unit, adjacency].consider(uses, self._delta, limit=budget)

    def _ledger(self, terms: Terms) -> OwnerLedger:
        assert terms.privacy is not None, "it spends"
        return self._ledgers[terms.privacy.unit, terms.privacy.adjacency]

    def _entry_id(self, terms: Terms) -> str:
        """Of the reservation that covers the next update of this round."""
        if _is_sampled(terms):
            return f"{terms.run_id}/all"
        return _next_id(self._ledger(terms), f"{terms.run_id}/{terms.round_id}")


def costs_of(run: Run, spending: SiteSpending) -> list[str]:
    """What a run would cost the site's data, before it consents, one sentence each."""
    plan = run.plan.privacy
    if plan is None:
        return [f"Run {run.name} promises no privacy; the platform sees this site's updates."]
    uses = [plan.use(run.plan.rounds)]
    stated = statement(plan, run.plan.rounds, tight=False)
    noise = run.plan.config.get(STATISTICS_NOISE)
    if isinstance(plan, RecordPlan) and noise is not None:
        uses.insert(0, GaussianUse(noise_multiplier=float(noise)))
    standing = spending.spent(plan.unit, plan.adjacency)
    decision = spending.consider(plan.unit, plan.adjacency, uses)
    told = decision.sentence
    if standing.limit is None:
        told = (
            f"It would spend epsilon {epsilon_text(decision.asked)} of these rows at delta "
            f"{standing.delta:g}, together with what is spent {epsilon_text(decision.after)}; no "
            "limit is set (--dp-limit)."
        )
    return [f"Run {run.name}: {stated.text}", stated.outside, told]


def _is_sampled(terms: Terms) -> bool:
    plan = terms.privacy
    return terms.kind == "training" and isinstance(plan, ClientPlan) and plan.cohort_rate < 1


def _next_id(ledger: OwnerLedger, base: str) -> str:
    """``base``, or with a number behind it where that has left."""
    states = {entry.id: entry.state for entry in ledger.entries()}
    found, more = base, 1
    while states.get(found) == "released":
        more += 1
        found = f"{base}#{more}"
    return found


def _round_of(entry_id: str) -> str:
    return entry_id.rpartition("/")[2].partition("#")[0]
