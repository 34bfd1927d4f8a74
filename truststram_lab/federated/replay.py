"""A run's rounds computed again in this kernel, from the files that the platform keeps.

The aggregate is a pure function of the updates in the plan's order, so its file must come out
with the same digest. Under client-level privacy that holds up to the noise, which was drawn once
and kept nowhere: the round goes on from the stored noised mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning import encodings, weights
from truststram_lab.learning.strategies import (
    DecodedUpdates,
    HeldUpdates,
    aggregate,
    expected_update,
)
from truststram_lab.learning.weights import State
from truststram_lab.schemas.federation import CreateRun, RunRound
from truststram_lab.schemas.replays import ArrayDifference, RoundReplay
from truststram_lab.schemas.strategies import Scaffold

__all__ = ["replay_rounds"]

#: SHA-256 -> the stored file
Fetch = Callable[[str], bytes]


def replay_rounds(
    plan: CreateRun, rounds: Sequence[RunRound], fetch: Fetch, *, only: int | None = None
) -> Iterator[RoundReplay]:
    """Compute each closed training round of ``rounds`` again, or one of them.

    Args:
        plan: of the run; it has the strategy.
        rounds: as the platform lists them, in their order.
        fetch: gives a stored file by its digest; an update's bytes are as they came.
        only: the number of the one training round to compute, from 1.

    Raises:
        InvalidInputError: no training round is closed, or ``only`` is none of them.
        UpdateRejectedError: a stored file does not fit the model any more.
    """
    closed = [each for each in rounds if each.kind == "training" and each.result_sha256]
    if not closed:
        raise InvalidInputError(
            f"No training round of {plan.model} is closed yet, so there is nothing to compute "
            "again; wait for the first one."
        )
    if only is not None and not 1 <= only <= len(closed):
        raise InvalidInputError(
            f"Round {only} is none of the {len(closed)} closed training rounds of {plan.model}; "
            f"give one from 1 to {len(closed)}.",
            field="number",
        )
    for number, each in enumerate(closed, start=1):
        if only not in (None, number):
            continue
        yield _replayed(plan, number, each, fetch)


def _replayed(plan: CreateRun, number: int, each: RunRound, fetch: Fetch) -> RoundReplay:
    assert each.model_sha256 is not None
    assert each.result_sha256 is not None
    base = weights.decode(fetch(each.model_sha256))[0]
    if isinstance(plan.strategy, Scaffold):
        base = {name: array for name, array in base.items() if not name.startswith("c/")}
    former = each.former_state_sha256
    memory = None if former is None else weights.decode(fetch(former))[0]
    updates: HeldUpdates | DecodedUpdates
    if each.noised_sha256 is not None:
        updates, shares = HeldUpdates([weights.decode(fetch(each.noised_sha256))[0]]), [1.0]
    else:
        like = expected_update(plan.strategy, base)
        readers = [partial(_update, fetch, sha256, like) for sha256 in each.updates]
        updates, shares = DecodedUpdates(readers), [float(weight) for weight in each.weights]
    made = aggregate(plan.strategy, base, updates, shares, memory, participation=each.participation)
    body = weights.encode(made.state)
    found = weights.sha256_hex(body)
    differences: list[ArrayDifference] = []
    if found != each.result_sha256:
        differences = list(_differences(weights.decode(fetch(each.result_sha256))[0], made.state))
    return RoundReplay(
        number=number,
        updates=len(each.updates),
        expected=each.result_sha256,
        found=found,
        noised=each.noised_sha256 is not None,
        differences=differences,
    )


def _update(fetch: Fetch, sha256: str, like: Mapping[str, np.ndarray]) -> State:
    return encodings.decode(fetch(sha256), like)[0]


def _differences(stored: State, found: State) -> Iterator[ArrayDifference]:
    for name in dict.fromkeys([*stored, *found]):
        one, two = stored.get(name), found.get(name)
        if one is None or two is None or one.shape != two.shape:
            there = one if one is not None else two
            assert there is not None, "one of them has the name"
            yield ArrayDifference(
                name=name, differing=there.size, coordinates=there.size, largest=None
            )
            continue
        gap = np.abs(one.astype(np.float64) - two.astype(np.float64))
        if gap.any():
            yield ArrayDifference(
                name=name,
                differing=int(np.count_nonzero(gap)),
                coordinates=one.size,
                largest=float(gap.max()),
            )
