"""LIME's local linear models, for many rows at once.

A perturbation is a row of bits: which columns stayed in the explained row's bin. The distance to
the row depends on how many did not, so the weights are a table of that count. All models come
from one Gram matrix a row; nothing is fitted twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .interfaces import Floats

__all__ = ["SELECTIONS", "LocalFit", "fit_row", "kernel"]

SELECTIONS = ("auto", "forward_selection", "highest_weights", "none")
#: Up to this many columns ``auto`` selects them one by one.
_FORWARD = 6
#: Regularisation of the model shown, and of the one that ranks columns.
_ALPHA, _RANKING_ALPHA = 1.0, 0.01


@dataclass(frozen=True)
class LocalFit:
    """A local model: ``intercept + coefficients @ bits``.

    Args:
        coefficients: (columns,), 0 for those not selected.
        selected: the columns used.
        score: weighted R squared over the perturbations.
    """

    coefficients: Floats
    intercept: float
    selected: NDArray[np.intp]
    score: float


def kernel(columns: int, width: float | None = None) -> Floats:
    """Weight of a perturbation by how many of its columns differ, (columns + 1,).

    Ribeiro, Singh & Guestrin 2016, "Why Should I Trust You?", section 3.4: an exponential kernel
    of the Euclidean distance; the width is 0.75 sqrt(columns), and the square root is taken, as
    in the authors' implementation. https://arxiv.org/abs/1602.04938
    """
    wide = 0.75 * np.sqrt(columns) if width is None else width
    found: Floats = np.sqrt(np.exp(-np.arange(columns + 1) / wide**2))
    return found


def fit_row(
    bits: NDArray[np.bool_], outputs: Floats, weights: Floats, features: int, selection: str
) -> list[LocalFit]:
    """The local model of each output.

    Args:
        bits: (columns, samples), whether a column stayed in the row's bin; the first sample is
            the row itself.
        outputs: (samples, outputs), the model's.
        weights: (samples,).
        features: columns to use at most.
        selection: one of ``SELECTIONS``.
    """
    # A matrix times its own transpose is half the work.
    total = weights.sum()
    root = np.sqrt(weights)
    scaled = bits * root
    mean = scaled @ root / total
    gram = scaled @ scaled.T - total * np.outer(mean, mean)
    means = weights @ outputs / total
    moments = scaled @ (root[:, None] * outputs) - total * np.outer(mean, means)
    powers = weights @ (outputs - means) ** 2
    found = []
    for k in range(outputs.shape[1]):
        chosen = _select(gram, moments[:, k], features, selection)
        coefficients = np.zeros(len(gram))
        coefficients[chosen] = _ridge(gram, moments[:, k], chosen, _ALPHA)
        intercept = means[k] - mean @ coefficients
        lost = powers[k] - 2 * coefficients @ moments[:, k] + coefficients @ gram @ coefficients
        score = 1.0 - lost / powers[k] if powers[k] > 0 else 1.0
        found.append(LocalFit(coefficients, float(intercept), chosen, float(score)))
    return found


def _ridge(gram: Floats, moment: Floats, chosen: NDArray[np.intp], alpha: float) -> Floats:
    part = gram[np.ix_(chosen, chosen)] + alpha * np.eye(len(chosen))
    found: Floats = np.asarray(np.linalg.solve(part, moment[chosen]), dtype=np.float64)
    return found


def _select(gram: Floats, moment: Floats, features: int, selection: str) -> NDArray[np.intp]:
    columns = len(gram)
    everything = np.arange(columns)
    if selection == "none":
        return everything
    if selection == "auto":
        selection = "forward_selection" if features <= _FORWARD else "highest_weights"
    if selection == "highest_weights":
        # The row's own bits are all 1: a column's weight is its coefficient.
        ranking = np.abs(_ridge(gram, moment, everything, _RANKING_ALPHA))
        return np.argsort(-ranking, kind="stable")[:features]
    return _forward(gram, moment, min(features, columns))


def _forward(gram: Floats, moment: Floats, features: int) -> NDArray[np.intp]:
    """Greedily the column that raises R squared most, by sweeping the Gram matrix.

    After a column is taken, what is left of the others is orthogonal to it, so the gain of each
    candidate is its squared moment over its own remaining power.
    """
    rest, left = gram.copy(), moment.copy()
    power = np.diag(gram).copy()
    taken: list[int] = []
    for _ in range(features):
        own = np.diag(rest)
        usable = own > 1e-10 * np.maximum(power, 1e-300)
        gain = np.where(usable, left**2 / np.where(usable, own, 1.0), 0.0)
        gain[taken] = -1.0
        best = int(np.argmax(gain))
        taken.append(best)
        if usable[best]:
            line = rest[best] / rest[best, best]
            left = left - line * left[best]
            rest = rest - np.outer(rest[:, best], line)
    return np.array(taken)
