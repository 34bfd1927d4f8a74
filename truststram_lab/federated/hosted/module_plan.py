"""What the platform is told of a simulated torch module: the plan, and what was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.federated.preparation import HOST
from truststram_lab.federated.record_privacy import EPSILON
from truststram_lab.learning import weights
from truststram_lab.learning.metrics import wilson_interval
from truststram_lab.schemas.federation import (
    CreateRun,
    DataSource,
    LocalTraining,
    RoundReport,
    RunReport,
    Score,
)
from truststram_lab.schemas.privacy import ClientPlan
from truststram_lab.schemas.simulation import ClientsReport
from truststram_lab.schemas.splits import parse_split

from .compare import quantiles
from .modules import Rows, optimizer_record
from .registration import shared_arrays

if TYPE_CHECKING:
    from truststram_lab.learning.virtual import Task

    from .module_run import ModuleRun

__all__ = ["module_plan", "module_report", "run_name"]

#: Losing clients that are named.
_NAMED = 20
Line = Mapping[str, float | int | None]


def run_name(given: str | None, module: object) -> str:
    """The name of the run's model: the one given, or that of the module's class.

    Raises:
        InvalidInputError: it holds no letter or digit.
    """
    text = type(module).__name__ if given is None else given
    name = re.sub(r"[^a-z0-9._-]+", "-", text.casefold()).strip("-._")[:90]
    if not name:
        raise InvalidInputError(
            f"{text!r} holds no letter or digit to name a run by; choose another name=.",
            field="name",
        )
    return name


def module_plan(
    run: ModuleRun,
    rows: Rows,
    task: Task,
    name: str,
    *,
    holdout: float,
    split: str | None,
    epsilon: float | None,
) -> CreateRun:
    """The plan of a run of named arrays.

    Args:
        split: None where clients came with their rows.
        epsilon: that the run may spend; None without privacy.
    """
    plan, rate = run.plan, task.learning_rate
    known = {} if rate is None or not 0 < rate <= 100 else {"learning_rate": rate}
    optimizer = optimizer_record(task.optimizer)
    told = "made by a function" if optimizer is None else json.dumps(optimizer)
    dealt = None if split is None else parse_split(split)
    return CreateRun(
        model=name,
        federation=name,
        sites=[HOST],
        rounds=plan.rounds,
        seed=plan.seed,
        local=LocalTraining(
            epochs=plan.epochs, batch_size=task.batch_size, dtype=task.dtype, **known
        ),
        initial_weights_sha256=weights.sha256_hex(weights.encode(shared_arrays(run.state))),
        simulated=True,
        source=DataSource(
            kind="arrays" if split is None else "dataframe",
            name="each client's arrays" if split is None else "a DataFrame",
            rows=rows.count(),
            sha256=rows.sha256(),
        ),
        split=None if dealt is None else dealt.model_copy(update={"holdout_fraction": holdout}),
        hosted=plan.hosted,
        filters=[*plan.filters],
        privacy=plan.privacy,
        config={"optimizer": told[:1000], "holdout": float(holdout)}
        | ({} if epsilon is None else {EPSILON: float(epsilon)}),
    )


def module_report(run: ModuleRun, lines: Sequence[Line], losing: Sequence[int]) -> RunReport:
    """What was measured so far.

    Args:
        lines: one a client, empty before the comparison.
        losing: places of those who would do better alone.
    """
    # Who was in a round is a secret where its clients are hidden.
    central = isinstance(run.plan.privacy, ClientPlan)
    history = [
        RoundReport(
            number=int(one["round"] or 0),
            accuracy=one["accuracy"],
            loss=float(one["loss"]),
            metrics={} if central else {"clients": float(one["clients"] or 0)},
        )
        for one in run.history
        if one["loss"] is not None
    ]
    scored = run.scored_rows
    last = history[-1].accuracy if history else None
    federated = None
    if last is not None and scored:
        low, high = wilson_interval(round(last * scored), scored)
        federated = Score(accuracy=last, low=low, high=high, rows=scored)
    return RunReport(
        history=history,
        federated=federated,
        device=str(getattr(run.trainer, "device", "cpu")),
        held_out_rows=scored,
        clients=_clients(run, lines, losing),
        privacy=run.privacy,
    )


def _clients(run: ModuleRun, lines: Sequence[Line], losing: Sequence[int]) -> ClientsReport:
    found = ClientsReport(rows=quantiles(run.sizes))
    if not lines:
        return found

    def of(key: str) -> np.ndarray:
        return np.array([line[key] for line in lines if line.get(key) is not None], np.float64)

    kinds = {"local": "local", "federated": "global", "personal": "personal"}
    numbers = {name: of(f"{key}_accuracy") for name, key in kinds.items()}
    named = [
        (f"client {place}", float(alone), float(together))
        for place in losing[:_NAMED]
        if (alone := lines[place]["local_accuracy"]) is not None
        and (together := lines[place]["global_accuracy"]) is not None
    ]
    return found.model_copy(
        update={name: quantiles(values) for name, values in numbers.items() if len(values)}
        | {"losing": named, "lost": len(losing)}
    )
