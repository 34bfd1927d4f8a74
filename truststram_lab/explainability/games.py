"""Shapley values of any function of rows: all coalitions, or antithetic permutations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .interfaces import Floats
from .rows import Rows
from .shapley import shapley_weights

__all__ = ["EXACT_PLAYERS", "Attribution", "Value", "exact", "permutations"]

#: Up to this many columns all 2**n coalitions are enumerated.
EXACT_PLAYERS = 12
#: Cells of the points evaluated at once: 24 MB of float64.
_CHUNK_CELLS = 3_000_000

#: Rows in, outputs out, float64 (n, outputs).
Value = Callable[[Rows], Floats]


@dataclass(frozen=True)
class Attribution:
    """What a method found.

    Args:
        values: (n, columns, outputs).
        base: (outputs,), what the contributions start from.
        error: standard errors, shaped as ``values``; None where nothing was sampled.
    """

    values: Floats
    base: Floats
    error: Floats | None = None


def exact(value: Value, rows: Rows, background: Rows) -> Attribution:
    """Interventional Shapley values: a coalition's value is the mean over the background.

    Every one of the 2**columns coalitions is evaluated with every background row (Lundberg &
    Lee 2017, equation 4, with the interventional value of Janzing et al. 2020, "Feature
    relevance quantification in explainable AI", section 3). https://arxiv.org/abs/1910.13413
    """
    present, weights = shapley_weights(rows.width)
    at_once = max(1, _CHUNK_CELLS // (len(background) * max(rows.width, 1)))
    found = []
    base = value(background).mean(axis=0)
    for row in range(len(rows)):
        game = [
            _coalitions(value, rows, row, background, present[start : start + at_once])
            for start in range(0, len(present), at_once)
        ]
        found.append(weights @ np.concatenate(game))
    return Attribution(np.stack(found), base)


def _coalitions(
    value: Value, rows: Rows, row: int, background: Rows, present: NDArray[np.bool_]
) -> Floats:
    m, b = len(present), len(background)
    keep = np.repeat(present, b, axis=0)
    others = np.tile(np.arange(b), m)
    outputs = value(rows.mix(background, np.full(m * b, row), others, keep))
    game: Floats = outputs.reshape(m, b, -1).mean(axis=1)
    return game


def permutations(
    value: Value, rows: Rows, background: Rows, *, pairs: int, rng: np.random.Generator
) -> Attribution:
    """Unbiased estimates: each pair walks one order of the columns and its reverse.

    A walk starts at a background row and changes one column after the other to the row's own;
    what a change adds is the column's. The background is dealt in turns, each of its rows as
    often as the others. Antithetic pairs: Mitchell, Cooper, Frank & Holmes 2022, "Sampling
    Permutations for Shapley Value Estimation", section 4.1. https://arxiv.org/abs/2104.12199

    The walks of a row add up to its output minus the mean of the *drawn* background rows. That
    the mean over the *whole* background is known corrects the estimates: the difference is
    dealt out in proportion to their variances, the least-squares adjustment to a known sum.

    Args:
        pairs: walks there and back for each row, at least 2.
    """
    base_outputs = value(background)
    own = value(rows)
    base = base_outputs.mean(axis=0)
    shape = (len(rows), rows.width, own.shape[1])
    values, errors = np.empty(shape), np.empty(shape)
    steps = max(2 * (rows.width - 1), 1)
    at_once = max(1, _CHUNK_CELLS // (pairs * steps * max(rows.width, 1)))
    for start in range(0, len(rows), at_once):
        part = np.arange(start, min(start + at_once, len(rows)))
        drawn = _dealt(len(part), pairs, len(background), rng)
        orders = rng.random((len(part), pairs, rows.width)).argsort(axis=2)
        points = _walks(value, rows, background, part, drawn, orders)
        gains = _gains(points, own[part], base_outputs[drawn], orders)
        variance = _variance(gains, drawn, len(background))
        values[part], errors[part] = _adjusted(gains.mean(axis=1), variance, own[part] - base)
    return Attribution(values, base, errors)


def _dealt(rows: int, pairs: int, size: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Background rows for the walks, (rows, pairs): whole shuffled decks, one after the other."""
    decks = -(-pairs // size)
    dealt = rng.random((rows, decks, size)).argsort(axis=2)
    return dealt.reshape(rows, -1)[:, :pairs]


def _walks(
    value: Value,
    rows: Rows,
    background: Rows,
    part: NDArray[np.intp],
    drawn: NDArray[np.intp],
    orders: NDArray[np.intp],
) -> Floats:
    """Outputs between the ends of both walks, (rows, pairs, 2, columns - 1, outputs)."""
    n, pairs, d = orders.shape
    if d == 1:
        width = value(background.take(slice(0, 1))).shape[1]
        return np.empty((n, pairs, 2, 0, width))
    rank = orders.argsort(axis=2)[:, :, None, None, :]
    step = np.arange(1, d)[:, None]
    keep = np.concatenate([rank < step, rank >= d - step], axis=2)
    count = 2 * (d - 1)
    mine = np.repeat(part, pairs * count)
    others = np.repeat(drawn.ravel(), count)
    outputs = value(rows.mix(background, mine, others, keep.reshape(-1, d)))
    return outputs.reshape(n, pairs, 2, d - 1, -1)


def _gains(points: Floats, own: Floats, start: Floats, orders: NDArray[np.intp]) -> Floats:
    """What each column added, mean of both walks, (rows, pairs, columns, outputs)."""
    n, pairs, _, _, k = points.shape
    first = np.broadcast_to(start[:, :, None, None, :], (n, pairs, 2, 1, k))
    last = np.broadcast_to(own[:, None, None, None, :], (n, pairs, 2, 1, k))
    gains = np.diff(np.concatenate([first, points, last], axis=3), axis=3)
    by_step = 0.5 * (gains[:, :, 0] + gains[:, :, 1, ::-1])
    found = np.empty_like(by_step)
    np.put_along_axis(found, orders[..., None], by_step, axis=2)
    return found


def _variance(gains: Floats, drawn: NDArray[np.intp], size: int) -> Floats:
    """Of the mean over pairs, (rows, columns, outputs).

    Where whole decks were dealt, at least two, each background row is a stratum, and only what
    varies within counts. Else the plain variance, which is too large: a deck without
    replacement varies less.
    """
    n, pairs = gains.shape[:2]
    if pairs % size or pairs < 2 * size:
        return np.asarray(gains.var(axis=1, ddof=1) / pairs)
    order = drawn.reshape(n, -1, size).argsort(axis=2)
    decks = gains.reshape(n, -1, size, *gains.shape[2:])
    same = np.take_along_axis(decks, order[..., None, None], axis=2)
    return np.asarray(same.var(axis=1, ddof=1).mean(axis=1) / pairs)


def _adjusted(mean: Floats, variance: Floats, total: Floats) -> tuple[Floats, Floats]:
    """The least-squares adjustment of the means to their known sum, and standard errors."""
    left = total - mean.sum(axis=1)
    whole = variance.sum(axis=1, keepdims=True)
    even = np.full_like(variance, 1.0 / variance.shape[1])
    share = np.divide(variance, whole, out=even, where=whole > 0)
    return mean + share * left[:, None, :], np.sqrt(variance)
