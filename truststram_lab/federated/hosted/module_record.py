"""What a simulation of a torch module leaves behind, so that it can be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from truststram_lab.learning import weights
from truststram_lab.learning.virtual import Task, Trainer
from truststram_lab.learning.virtual.task import Loss
from truststram_lab.schemas.personal import personal_text
from truststram_lab.schemas.simulation import Hostile

from .module_run import ModuleRun
from .modules import Rows, optimizer_record

__all__ = ["device_of", "fingerprint", "module_record"]


def device_of(trainer: Trainer) -> str:
    """Where it trains."""
    return str(getattr(trainer, "device"))  # noqa: B009  (not a part of the protocol)


def module_record(
    run: ModuleRun, rows: Rows, task: Task, given: dict[str, Any], loss: Loss | None, start: str
) -> dict[str, Any]:
    """What repeats the run, and digests of what went in and came out.

    Args:
        given: options that only the verb knows.
        start: digest of the initial weights.
    """
    options = {**given, **_options(run, task)}
    # A run that was stopped is repeated as far as it came.
    options["rounds"] = len(run.history) or run.plan.rounds
    left_out = ["model", "data" if "split" in given else "clients"]
    left_out += ["loss"] * (loss is not None) + ["optimizer"] * ("optimizer" not in options)
    return {
        "options": options,
        "left_out": left_out,
        "clients": len(rows.train),
        # Secret noise comes from no seed.
        "repeatable": (
            run.plan.privacy is None
            and all(one.type != "gaussian_noise" for one in run.plan.filters)
        ),
        "rounds_asked": run.plan.rounds,
        "rounds_done": len(run.history),
        "why": run.trainer.why,
        "data_sha256": rows.sha256(),
        "start_sha256": start,
        "result_sha256": fingerprint(run.state),
    }


def _options(run: ModuleRun, task: Task) -> dict[str, Any]:
    plan, trainer, failures = run.plan, run.trainer, run.plan.hosted.failures
    optimizer = optimizer_record(task.optimizer)
    return {
        "strategy": str(plan.hosted.strategy),
        "epochs": plan.epochs,
        "batch_size": task.batch_size,
        **({} if optimizer is None else {"optimizer": optimizer}),
        "seed": plan.seed,
        "fraction": plan.hosted.fraction,
        "drop": failures.drop,
        "stragglers": failures.stragglers,
        "hostile": _exact_hostile(failures.hostile),
        "filters": [one.model_dump(mode="json") for one in plan.filters],
        "personal": None if plan.personal is None else personal_text(plan.personal),
        "dtype": task.dtype,
        "backend": trainer.backend,
        "chunk": trainer.chunk,
        "device": device_of(trainer),
    }


# The texts on cards round numbers; a record may not.


def _exact_hostile(hostile: Hostile | None) -> str | None:
    if hostile is None:
        return None
    factor = "" if hostile.attack == "label_flip" else f"={hostile.factor!r}"
    return f"{hostile.share!r}:{hostile.attack}{factor}"


def fingerprint(state: Mapping[str, np.ndarray]) -> str:
    """The digest of a file of these weights."""
    return weights.sha256_hex(weights.encode(dict(state)))
