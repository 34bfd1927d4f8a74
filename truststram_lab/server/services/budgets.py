"""A federation's privacy budget and its ledger, in the database.

Every training round of a run with a privacy plan is an entry, with or without a budget. It is
reserved in the transaction that opens the round, and released in the one that publishes the
round's result; what was reserved counts as spent.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row, func, insert, select, update

from truststram_lab.exceptions import ConflictError, InvalidInputError, PrivacyBudgetError
from truststram_lab.schemas.federation import CreateRun, SetBudget
from truststram_lab.schemas.privacy import (
    Budget,
    BudgetEntry,
    BudgetKey,
    GaussianUse,
    PrivacyBudget,
    PrivacyPlan,
)
from truststram_lab.server.stores.engine import reading, writing
from truststram_lab.server.stores.ids import timestamp
from truststram_lab.server.stores.tables import budget_entries, budgets

from .federation import find_federation

if TYPE_CHECKING:
    from truststram_lab.learning.privacy.ledger import Ledger

__all__ = ["BudgetsService", "check_budget", "release", "reserve"]

#: The delta of the accounting where no budget names one.
_DELTA = 1e-5


class BudgetsService:
    """The budgets of an organisation's federations."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put(self, organisation_id: str, ref: str, request: SetBudget) -> PrivacyBudget:
        """Set the most that the federation's data may ever spend.

        Raises:
            ConflictError: more is spent already, or it was spent in the other unit.
            NotFoundError: no such federation.
        """
        now = timestamp()
        with writing(self._engine) as connection:
            federation = find_federation(connection, organisation_id, ref)
            other = connection.execute(
                select(budget_entries.c.unit).where(
                    budget_entries.c.federation_id == federation.id,
                    budget_entries.c.unit != request.unit,
                    budget_entries.c.state != "returned",
                )
            ).first()
            if other is not None:
                raise ConflictError(
                    f"Rounds of {federation.name} were counted by the {other.unit} already; units "
                    f"do not add up, so set the budget in unit {other.unit!r}."
                )
            budget = Budget(epsilon=request.epsilon, delta=request.delta)
            spent = _ledger(connection, federation.id, request.unit, budget).spent().epsilon
            if spent is None or spent > request.epsilon:
                raise ConflictError(
                    f"{federation.name} has spent epsilon {_text(spent)} at delta "
                    f"{request.delta:g} already, more than {request.epsilon:g}; set a larger "
                    "budget."
                )
            former = connection.execute(
                update(budgets)
                .where(budgets.c.federation_id == federation.id)
                .values(**request.model_dump(), updated_at=now)
            ).rowcount
            if not former:
                values = {"federation_id": federation.id, "updated_at": now, **request.model_dump()}
                connection.execute(insert(budgets).values(values))
            return _view(connection, federation)

    def get(self, organisation_id: str, ref: str) -> PrivacyBudget:
        """What the federation's rounds have spent, and what is left."""
        with reading(self._engine) as connection:
            return _view(connection, find_federation(connection, organisation_id, ref))


def check_budget(connection: Connection, federation: Row[Any], plan: CreateRun) -> None:
    """Refuse a run that a federation's budget cannot count.

    Raises:
        InvalidInputError: no privacy plan, or one of another unit than the budget's.
    """
    budget = _budget(connection, federation.id)
    if budget is None:
        return
    if plan.privacy is None:
        raise InvalidInputError(
            f"Federation {federation.name!r} has a privacy budget of epsilon {budget.epsilon:g} "
            f"for each {budget.unit}, and this run has no privacy plan; give it one.",
            field="privacy",
        )
    if plan.privacy.unit != budget.unit:
        raise InvalidInputError(
            f"The run's plan protects each {plan.privacy.unit}, and the budget of "
            f"{federation.name!r} counts each {budget.unit}; use a plan of that unit.",
            field="privacy",
        )


def reserve(
    connection: Connection,
    run: Row[Any],
    privacy: PrivacyPlan,
    round_id: str,
    number: int,
    now: str,
    *,
    statistics_noise: float | None = None,
) -> None:
    """Take what the round spends, before its noise is drawn.

    Args:
        statistics_noise: the noise multiplier of a round of means and variances; None is a
            training round.

    Raises:
        PrivacyBudgetError: it does not fit; nothing is taken.
    """
    purpose = f"round {number} of run {run.name}"
    if statistics_noise is not None:
        purpose = f"means and variances of run {run.name}"
    budget = _budget(connection, run.federation_id)
    use = privacy.use()
    if statistics_noise is not None:
        use = GaussianUse(noise_multiplier=statistics_noise)
    if budget is not None:
        if privacy.unit != budget.unit:
            raise PrivacyBudgetError(
                f"The run's plan protects each {privacy.unit}, and the budget counts each "
                f"{budget.unit}; start a run with a plan of that unit."
            )
        limit = Budget(epsilon=budget.epsilon, delta=budget.delta)
        ledger = _ledger(connection, run.federation_id, budget.unit, limit)
        others = {row.adjacency for row in _entries(connection, run.federation_id, budget.unit)}
        if others - {privacy.adjacency}:
            raise PrivacyBudgetError(
                f"The budget was spent under adjacency {min(others)!r}, this plan has "
                f"{privacy.adjacency!r}; the two do not add up, so use the former mechanism."
            )
        ledger.reserve(round_id, purpose, [use])
    position = connection.execute(
        select(func.count()).where(budget_entries.c.federation_id == run.federation_id)
    ).scalar_one()
    connection.execute(
        insert(budget_entries).values(
            federation_id=run.federation_id,
            round_id=round_id,
            position=position,
            unit=privacy.unit,
            adjacency=privacy.adjacency,
            purpose=purpose,
            uses=[use.model_dump(mode="json")],
            state="reserved",
            created_at=now,
        )
    )


def release(connection: Connection, round_id: str) -> None:
    """Note, in the transaction that publishes it, that the round's result is out."""
    connection.execute(
        update(budget_entries).where(budget_entries.c.round_id == round_id).values(state="released")
    )


def _budget(connection: Connection, federation_id: str) -> Row[Any] | None:
    return connection.execute(
        select(budgets).where(budgets.c.federation_id == federation_id)
    ).one_or_none()


def _entries(connection: Connection, federation_id: str, unit: str) -> list[Row[Any]]:
    query = (
        select(budget_entries)
        .where(budget_entries.c.federation_id == federation_id, budget_entries.c.unit == unit)
        .order_by(budget_entries.c.position)
    )
    return list(connection.execute(query))


def _ledger(connection: Connection, federation_id: str, unit: str, budget: Budget) -> Ledger:
    # numpy is loaded on first use: the platform listens before that
    from truststram_lab.learning.privacy.ledger import Ledger

    rows = _entries(connection, federation_id, unit)
    digest = hashlib.sha256(federation_id.encode()).hexdigest()
    adjacency = rows[0].adjacency if rows else "add-or-remove"
    key = BudgetKey.model_validate({"dataset_sha256": digest, "unit": unit, "adjacency": adjacency})
    return Ledger(key, budget, tuple(_entry(row) for row in rows))


def _entry(row: Row[Any]) -> BudgetEntry:
    return BudgetEntry(
        id=row.round_id,
        purpose=row.purpose,
        uses=[GaussianUse.model_validate(use) for use in row.uses],
        state=row.state,
    )


def _view(connection: Connection, federation: Row[Any]) -> PrivacyBudget:
    budget = _budget(connection, federation.id)
    unit = budget.unit if budget is not None else _unit(connection, federation.id)
    delta = budget.delta if budget is not None else _DELTA
    # Without a budget any will do: only what is spent is asked for.
    limit = Budget(epsilon=budget.epsilon if budget is not None else 1.0, delta=delta)
    ledger = _ledger(connection, federation.id, unit, limit)
    spent = ledger.spent()
    return PrivacyBudget(
        federation_id=federation.id,
        epsilon=spent.epsilon,
        delta=delta,
        rounds_consumed=spent.entries,
        budget_remaining=ledger.remaining() if budget is not None else None,
        epsilon_spent=spent.epsilon,
        epsilon_budget=budget.epsilon if budget is not None else None,
        mechanism=spent.accountant,
        history=list(ledger.entries),
    )


def _unit(connection: Connection, federation_id: str) -> str:
    query = (
        select(budget_entries.c.unit)
        .where(budget_entries.c.federation_id == federation_id)
        .order_by(budget_entries.c.position.desc())
        .limit(1)
    )
    return str(connection.execute(query).scalar_one_or_none() or "record")


def _text(epsilon: float | None) -> str:
    from truststram_lab.learning.privacy.statements import epsilon_text

    return epsilon_text(epsilon)
