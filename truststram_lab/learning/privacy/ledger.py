"""The arithmetic of a privacy budget: what is spent, and whether one more round fits.

A ledger is a value: every change gives a new one, and whoever stores it stores the entries. It
is crash safe by construction. Epsilon is reserved before noise is drawn; from then on it counts,
until somebody who knows that no noise was drawn returns it. An entry whose release nobody can
tell about therefore counts as spent.

One ledger is of one data set, unit and adjacency, across federations, statistics and
explanations: what they released together is composed from all their mechanisms, because their
epsilons do not add up.

Rounds may be chosen after looking at former ones. For full participation the exact sum still
holds then (Koskela, Tobaben and Honkela 2023, "Individual Privacy Accounting with Gaussian
Differential Privacy", https://arxiv.org/abs/2209.15596), for sampled rounds the sum of Renyi
curves does at any one order (Feldman and Zrnic 2021, "Individual Privacy Accounting via a Renyi
Filter", https://arxiv.org/abs/2008.11193).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from ...exceptions import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PrivacyBudgetError,
    nearest,
)
from ...schemas.privacy import (
    Budget,
    BudgetEntry,
    BudgetKey,
    EntryKind,
    EntryState,
    GaussianUse,
    Spending,
)
from .accountant import account
from .statements import epsilon_text

__all__ = ["Decision", "Ledger"]

#: What would fit is searched up to here; beyond, a budget is no limit.
_MOST_STEPS = 1 << 24


@dataclass(frozen=True)
class Decision:
    """Whether a request fits, in numbers.

    Attributes:
        spent: epsilon before the request.
        asked: epsilon of the request alone.
        after: epsilon with it; less than ``spent + asked``.
        fits_share: the largest part of the request's steps that would still fit, in [0, 1].
        fits_steps: as steps, summed over the request's uses.
        sentence: for people.
    """

    allowed: bool
    spent: float
    asked: float
    after: float
    budget: Budget
    fits_share: float
    fits_steps: int
    sentence: str


@dataclass(frozen=True)
class Ledger:
    """All entries of one key, in the order of their reservation."""

    key: BudgetKey
    budget: Budget
    entries: tuple[BudgetEntry, ...] = ()

    def uses(self) -> list[GaussianUse]:
        """What counts: everything that was reserved and not returned."""
        return [use for entry in self.entries if entry.state != "returned" for use in entry.uses]

    def spent(self, how: Literal["live", "tight"] = "live") -> Spending:
        """What is spent, composed, beside the plain sum of the entries' epsilons."""
        counted = [entry for entry in self.entries if entry.state != "returned"]
        total = account(self.uses(), self.budget.delta, how)
        alone = [account(entry.uses, self.budget.delta, how).epsilon for entry in counted]
        return Spending(
            epsilon=total.epsilon,
            epsilon_added_up=math.fsum(alone),
            delta=self.budget.delta,
            entries=len(counted),
            accountant=total.accountant if counted else None,
        )

    def remaining(self) -> float:
        """The epsilon between what is spent and the budget, 0 or more."""
        return max(0.0, self.budget.epsilon - self._epsilon(()))

    def consider(self, uses: Sequence[GaussianUse]) -> Decision:
        """Whether ``uses`` fit beside what is spent, and what of them would."""
        spent, after = self._epsilon(()), self._epsilon(uses)
        asked = account(uses, self.budget.delta).epsilon
        allowed = after <= self.budget.epsilon
        steps = sum(use.steps for use in uses)
        fitting = steps if allowed else self._fitting(uses)
        return Decision(
            allowed=allowed,
            spent=spent,
            asked=asked,
            after=after,
            budget=self.budget,
            fits_share=fitting / steps if steps else 1.0,
            fits_steps=fitting,
            sentence=self._sentence(allowed, spent, asked, after, fitting, steps),
        )

    def more_of(self, uses: Sequence[GaussianUse]) -> int:
        """How many more times ``uses`` (a round) fit; at most 2**24."""
        return self._most(lambda times: [_times(use, times) for use in uses if times])

    def reserve(
        self,
        entry_id: str,
        purpose: str,
        uses: Sequence[GaussianUse],
        kind: EntryKind | None = None,
    ) -> Ledger:
        """Take the epsilon of ``uses``, before their noise is drawn.

        The same reservation again changes nothing, so a request may be repeated.

        Raises:
            PrivacyBudgetError: they do not fit; the message has the numbers.
            ConflictError: the id is taken by another request.
            InvalidInputError: there is nothing to reserve.
        """
        if not uses:
            raise InvalidInputError("A reservation needs at least one release.", field="uses")
        known = self._find(entry_id)
        if known is not None:
            if known.uses == list(uses) and known.purpose == purpose and known.state != "returned":
                return self
            raise ConflictError(
                f"Entry {entry_id!r} is in the ledger already, as {known.purpose!r} "
                f"({known.state}); reserve under a new id."
            )
        decision = self.consider(uses)
        if not decision.allowed:
            raise PrivacyBudgetError(
                decision.sentence,
                spent=decision.spent,
                asked=decision.asked,
                budget=self.budget.epsilon,
                fits=decision.fits_steps,
            )
        entry = BudgetEntry(id=entry_id, kind=kind, purpose=purpose, uses=list(uses))
        return replace(self, entries=(*self.entries, entry))

    def release(self, entry_id: str) -> Ledger:
        """Note that the noised result was published; again changes nothing.

        Raises:
            NotFoundError: nothing was reserved under that id.
            ConflictError: it was returned, so no noise of it may be out.
        """
        return self._move(entry_id, "released", not_from="returned")

    def give_back(self, entry_id: str) -> Ledger:
        """Return a reservation whose noise was certainly never drawn; again changes nothing.

        Raises:
            NotFoundError: nothing was reserved under that id.
            ConflictError: it was released.
        """
        return self._move(entry_id, "returned", not_from="released")

    def _move(self, entry_id: str, state: EntryState, not_from: EntryState) -> Ledger:
        known = self._find(entry_id)
        if known is None:
            close = nearest(entry_id, [entry.id for entry in self.entries])
            hint = f"did you mean {close[0]!r}?" if close else "reserve it first."
            raise NotFoundError(f"The ledger has no entry {entry_id!r}; {hint}")
        if known.state == not_from:
            raise ConflictError(
                f"Entry {entry_id!r} was {known.state}, and that is final; reserve under a new id."
            )
        moved = known.model_copy(update={"state": state})
        return replace(self, entries=tuple(moved if e.id == entry_id else e for e in self.entries))

    def _find(self, entry_id: str) -> BudgetEntry | None:
        return next((entry for entry in self.entries if entry.id == entry_id), None)

    def _epsilon(self, more: Iterable[GaussianUse]) -> float:
        return account([*self.uses(), *more], self.budget.delta).epsilon

    def _fitting(self, uses: Sequence[GaussianUse]) -> int:
        """Steps of the request that fit, taken from its uses in turn, first to last."""
        taken: list[GaussianUse] = []
        for use in uses:
            most = self._most(partial(_with, taken, use), use.steps)
            taken = _with(taken, use, most)
            if most < use.steps:
                break
        return sum(use.steps for use in taken)

    def _most(self, uses: Callable[[int], list[GaussianUse]], most: int = _MOST_STEPS) -> int:
        """The largest number up to ``most`` whose uses fit; epsilon rises with it."""

        def fits(number: int) -> bool:
            return self._epsilon(uses(number)) <= self.budget.epsilon

        low, high = 0, most + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def _sentence(
        self, allowed: bool, spent: float, asked: float, after: float, fitting: int, steps: int
    ) -> str:
        numbers = (
            f"epsilon {epsilon_text(spent)} is spent, {epsilon_text(asked)} is asked, together "
            f"{epsilon_text(after)}"
        )
        limit = f"the budget of {self.budget.epsilon:g} at delta {self.budget.delta:g}"
        if allowed:
            return f"This fits {limit}: {numbers}."
        way = f"{fitting} of its {steps} steps would fit" if fitting else "nothing of it would fit"
        return f"This goes over {limit}: {numbers}; {way}, or use more noise."


def _with(taken: list[GaussianUse], use: GaussianUse, steps: int) -> list[GaussianUse]:
    return [*taken, use.model_copy(update={"steps": steps})] if steps else taken


def _times(use: GaussianUse, times: int) -> GaussianUse:
    return use.model_copy(update={"steps": use.steps * times})
