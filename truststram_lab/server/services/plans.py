"""The plans of runs, read once: they never change."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from typing import Any

from sqlalchemy import Connection, bindparam, select

from truststram_lab.schemas.federation import CreateRun, RoundPlan
from truststram_lab.schemas.tables import Statistics
from truststram_lab.server.stores.tables import runs

__all__ = ["Terms", "plan_of", "terms_of"]

#: Runs whose plans are kept in memory.
_KEPT = 256

_PLAN = select(runs.c.plan).where(runs.c.id == bindparam("run"))
_STATISTICS = select(runs.c.statistics).where(runs.c.id == bindparam("run"))

_plans: OrderedDict[str, CreateRun] = OrderedDict()
_terms: OrderedDict[tuple[str, bool], Terms] = OrderedDict()


class Terms:
    """What every round of a run has in common, as its sites get it.

    Attributes:
        sha256: of ``document``, which is canonical JSON.
    """

    def __init__(self, plan: CreateRun, statistics: dict[str, Any] | None) -> None:
        self.plan = RoundPlan(
            model=plan.model,
            local=plan.local,
            config=plan.config,
            strategy=plan.strategy,
            filters=plan.filters,
            privacy=plan.privacy,
            signature=plan.signature,
            architecture=plan.architecture,
            statistics=None if statistics is None else Statistics.model_validate(statistics),
        )
        text = json.dumps(self.plan.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        self.document = text.encode()
        self.sha256 = hashlib.sha256(self.document).hexdigest()


def plan_of(connection: Connection, run_id: str) -> CreateRun:
    """The plan of a run that exists."""
    found = _plans.get(run_id)
    if found is None:
        stored = connection.execute(_PLAN, {"run": run_id}).scalar_one()
        found = _plans[run_id] = CreateRun.model_validate(stored)
        _bound(_plans)
    return found


def terms_of(connection: Connection, run_id: str, with_statistics: bool) -> Terms:
    """What the run's sites are told; the statistics are there once their round is over."""
    key = run_id, with_statistics
    found = _terms.get(key)
    if found is None:
        statistics = None
        if with_statistics:
            statistics = connection.execute(_STATISTICS, {"run": run_id}).scalar_one()
        found = _terms[key] = Terms(plan_of(connection, run_id), statistics)
        _bound(_terms)
    return found


def _bound(kept: OrderedDict[Any, Any]) -> None:
    while len(kept) > _KEPT:
        try:
            kept.popitem(last=False)
        except KeyError:  # another thread was faster
            return
