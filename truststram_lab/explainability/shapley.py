"""Exact Shapley values of the game in which absent columns keep their baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import factorial

import numpy as np

from .interfaces import Floats, Numbers

__all__ = ["exact_shapley", "shapley_weights"]

#: Cells of an array held at once: 32 MB of float64.
_CHUNK_CELLS = 4_000_000


@lru_cache(maxsize=16)
def shapley_weights(players: int) -> tuple[np.ndarray, np.ndarray]:
    """All coalitions and the linear map from their values to the Shapley values.

    Returns:
        ``present``, bool (2**players, players): row S says who is in coalition S, the empty
        one first, the grand one last; ``weights``, float64 (players, 2**players), so that
        ``phi = weights @ v``. Both are read-only.

    A coalition S counts for i as |S|! (n - |S| - 1)! / n! before i joins, and with the
    opposite sign after (Shapley 1953, "A Value for n-Person Games", theorem 2; Lundberg &
    Lee 2017, "A Unified Approach to Interpreting Model Predictions", equation 4).
    """
    codes = np.arange(2**players)
    present = (codes[:, None] >> np.arange(players)) & 1 == 1
    joining = np.array(
        [factorial(s) * factorial(players - s - 1) / factorial(players) for s in range(players)]
    )
    size = present.sum(axis=1)
    after = np.append(0.0, joining)[size]  # i is one of the |S|: it joined |S| - 1 others
    before = np.append(joining, 0.0)[size]
    weights = np.where(present.T, after, -before)
    present.flags.writeable = weights.flags.writeable = False
    return present, weights


def exact_shapley(
    value: Callable[[Floats], Numbers],
    rows: Floats,
    baseline: Floats,
    groups: Sequence[slice],
    readout: Floats,
    *,
    widest: int = 1,
) -> Floats:
    """Shapley values of every row, by enumerating the coalitions of ``groups``.

    Args:
        value: network inputs (m, width) -> outputs (m, k).
        rows: encoded rows, (n, width).
        baseline: encoded inputs of an absent column, (width,).
        groups: the inputs of each player; a player's inputs move together.
        readout: (n, k); the game of row i is ``value(x) @ readout[i]``.
        widest: units of the network's widest layer; bounds the memory of one evaluation.

    Returns:
        float64 (n, players); a row sums to its value minus the baseline's.
    """
    present, weights = shapley_weights(len(groups))
    columns = np.zeros((len(present), len(baseline)), dtype=bool)
    for player, inputs in enumerate(groups):
        columns[:, inputs] = present[:, player, None]

    at_once = max(1, _CHUNK_CELLS // (len(present) * max(len(baseline), 1)))
    phi = np.empty((len(rows), len(groups)))
    for start in range(0, len(rows), at_once):
        part = slice(start, start + at_once)
        mixed = np.where(columns[None], rows[part, None, :], baseline)
        outputs = _evaluate(value, mixed.reshape(-1, len(baseline)), widest)
        game = outputs.reshape(*mixed.shape[:2], -1)
        values = np.einsum("nsk,nk->ns", game, readout[part])
        phi[part] = values @ weights.T
    return phi


def _evaluate(value: Callable[[Floats], Numbers], points: Floats, widest: int) -> Floats:
    at_once = max(1, _CHUNK_CELLS // max(widest, 1))
    parts = [value(points[i : i + at_once]) for i in range(0, len(points), at_once)]
    return np.concatenate(parts).astype(np.float64, copy=False)
