"""The accuracy to expect of a plan, by running it on tables at hand. Torch is loaded on use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...exceptions import InvalidInputError
from ...schemas.federation import LocalTraining
from ...schemas.privacy import ClientPlan, ExpectedAccuracy, LocalPlan, PrivacyPlan, RecordPlan
from ...schemas.registry import Architecture
from ..network import Network
from ..training import initial_state, round_seed, train
from ..weights import State, apply, delta
from .mechanisms import cohort, noised_mean, noised_update
from .private_training import train_privately

__all__ = ["expected_accuracy"]

#: A site's encoded rows (n, inputs) and class places (n,).
Rows = tuple[np.ndarray, np.ndarray]


def expected_accuracy(
    plan: PrivacyPlan,
    architecture: Architecture,
    tables: Sequence[Rows],
    held_out: Rows,
    *,
    local: LocalTraining | None = None,
    repeats: int = 3,
    seed: int = 0,
) -> ExpectedAccuracy:
    """Run the plan in this process ``repeats`` times, and once without its noise.

    Use public or demo rows that look like the sites' own: on protected rows the simulation is a
    release that no budget was charged for. Other rows give other numbers; three repeats show
    how far the noise alone moves them, no more.

    Args:
        plan: record, client or local; a record-level plan's sample rate is taken for every site.
        architecture: of the network, from random weights.
        tables: one a site.
        held_out: rows to score on, in no table.
        local: training at a site; by default its defaults.
        repeats: 1 or more.
        seed: the same arguments give the same numbers; nothing here is published, so the noise
            may be repeated.

    Raises:
        InvalidInputError: there is no site, no held-out row, or no repeat.
    """
    if not tables or not len(held_out[0]) or repeats < 1:
        raise InvalidInputError(
            "A simulation needs a table, held-out rows and a repeat: one of each at least."
        )
    training = local or LocalTraining()
    scores = [
        _score(architecture, _run(plan, architecture, tables, training, seed, number), held_out)
        for number in range(repeats)
    ]
    noise_name = "sigma" if isinstance(plan, LocalPlan) else "noise_multiplier"
    quiet = plan.model_copy(update={noise_name: 0.0})
    without = _score(architecture, _run(quiet, architecture, tables, training, seed, 0), held_out)
    mean = float(np.mean(scores))
    return ExpectedAccuracy(
        mean=mean,
        low=min(scores),
        high=max(scores),
        without_noise=without,
        repeats=repeats,
        text=(
            f"Accuracy {mean:.1%} ({min(scores):.1%} to {max(scores):.1%} in {repeats} "
            f"simulated runs on {len(tables)} given tables), {without:.1%} without noise."
        ),
    )


def _run(
    plan: PrivacyPlan,
    architecture: Architecture,
    tables: Sequence[Rows],
    local: LocalTraining,
    seed: int,
    number: int,
) -> State:
    # One stream for what is drawn besides training, so that noise or none sees the same batches.
    draws = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0xD9, number)))
    noise = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0xD8, number)))
    state = initial_state(architecture, seed, local.dtype)
    for round_number in range(1, plan.rounds + 1):
        rate = plan.cohort_rate if isinstance(plan, ClientPlan) else 1.0
        updates: list[State] = []
        for place in cohort(len(tables), rate, rng=draws).tolist():
            x, y = tables[place]
            if isinstance(plan, RecordPlan):
                new, _ = train_privately(
                    architecture,
                    state,
                    x,
                    y,
                    local,
                    plan,
                    "cpu",
                    _never,
                    sampling=draws,
                    noise=noise,
                )
            else:
                of_site = round_seed(seed + number, place, round_number)
                new, _ = train(architecture, state, x, y, local, of_site, "cpu", _never)
            updates.append(delta(state, new))
        state = apply(state, _aggregate(plan, updates, state, len(tables), noise))
    return state


def _aggregate(
    plan: PrivacyPlan,
    updates: Sequence[State],
    like: Mapping[str, np.ndarray],
    sites: int,
    noise: np.random.Generator,
) -> State:
    if isinstance(plan, ClientPlan):
        counted = plan.model_copy(update={"sites": sites})
        return noised_mean(updates, like, counted, rng=noise)
    if isinstance(plan, LocalPlan):
        updates = [noised_update(update, plan, rng=noise) for update in updates]
    return {
        name: np.mean([update[name] for update in updates], axis=0, dtype=np.float64).astype(
            array.dtype
        )
        for name, array in like.items()
    }


def _score(architecture: Architecture, state: State, held_out: Rows) -> float:
    x, y = held_out
    return float((Network(architecture, state).probabilities(x).argmax(axis=1) == y).mean())


def _never() -> bool:
    return False
