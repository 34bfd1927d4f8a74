"""Robust rules that look at whole updates: those with near neighbours are believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...exceptions import InvalidInputError
from ..weights import State
from .blocks import is_count
from .mean import Mean
from .reading import Updates, check_layout, columns

__all__ = ["krum", "krum_scores", "multi_krum", "squared_distances"]


def krum(
    updates: Updates, expected: Mapping[str, np.ndarray], hostile: int
) -> tuple[State, tuple[int, ...]]:
    """The one update whose n - f - 2 nearest neighbours are nearest, and its place.

    Args:
        updates: n >= 2 f + 3 updates, read block by block.
        expected: names, shapes and types that every update must have.
        hostile: f, how many updates may be anything.

    Raises:
        InvalidInputError: there are too few updates for f; the message has the numbers.
        UpdateRejectedError: an update does not look like ``expected``, or is not finite.

    Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient
    Descent", section 4. https://arxiv.org/abs/1703.02757
    """
    return _select(updates, expected, hostile, 1, "krum")


def multi_krum(
    updates: Updates, expected: Mapping[str, np.ndarray], hostile: int, keep: int | None = None
) -> tuple[State, tuple[int, ...]]:
    """The plain mean of the ``keep`` updates with the best Krum scores, and their places.

    Every update weighs the same, because a hostile site would say that it has many rows.

    Args:
        updates: n >= 2 f + 3 updates, read block by block.
        expected: names, shapes and types that every update must have.
        hostile: f, how many updates may be anything.
        keep: 1 to n - f, since one more would surely be hostile if f are; left out, n - f - 2.

    Raises:
        InvalidInputError: too few updates for f, or another ``keep``; with the numbers.
        UpdateRejectedError: an update does not look like ``expected``, or is not finite.

    Blanchard et al. 2017, section 5; the default is the bound of Damaskinos et al. 2019,
    "AggregaThor: Byzantine Machine Learning via Robust Gradient Aggregation", section 2.
    """
    return _select(updates, expected, hostile, keep, "multi_krum")


def _select(
    updates: Updates, expected: Mapping[str, np.ndarray], hostile: int, keep: int | None, rule: str
) -> tuple[State, tuple[int, ...]]:
    count = len(updates)
    if hostile < 0 or count < 2 * hostile + 3:
        tolerated = (count - 3) // 2
        way_out = f"choose hostile={tolerated} or less" if tolerated >= 0 else "wait for more sites"
        raise InvalidInputError(
            f"{rule} with hostile={hostile} takes {2 * max(hostile, 0) + 3} updates or more, but "
            f"{count} came; {way_out}.",
            field="hostile",
        )
    wanted = count - hostile - 2 if keep is None else keep
    if not 1 <= wanted <= count - hostile:
        raise InvalidInputError(
            f"{rule} cannot keep {wanted} of {count} updates of which {hostile} may be hostile; "
            f"keep 1 to {count - hostile}.",
            field="keep",
        )
    for place in range(count):
        check_layout(updates.layout(place), expected)
    scores = krum_scores(squared_distances(updates, expected), hostile)
    # A stable sort: of equal scores, the site that is first in the plan.
    best = np.argsort(scores, kind="stable")[:wanted]
    if not np.isfinite(scores[best]).all():
        raise InvalidInputError(
            "The updates are so far apart that float64 has no number for it; lower the sites' "
            "learning rate.",
            field="updates",
        )
    # In the plan's order, as every sum.
    places = tuple(sorted(int(place) for place in best))
    return _mean_of(updates, expected, places), places


def _mean_of(updates: Updates, expected: Mapping[str, np.ndarray], places: Sequence[int]) -> State:
    mean = Mean([1.0] * len(places), expected)
    for place in places:
        mean.add_from(updates, place)
    return mean.result()


def squared_distances(updates: Updates, expected: Mapping[str, np.ndarray]) -> np.ndarray:
    """Squared Euclidean distances of the updates, float64 (n, n), infinite on the diagonal.

    By |a|^2 + |b|^2 - 2 a.b, summed in float64 over blocks of columns; whole numbers do not
    count. The error is about 1e-16 (|a|^2 + |b|^2), so only updates that agree in the first
    seven digits can change places. A distance that overflows is infinite.
    """
    gram = np.zeros((len(updates), len(updates)))
    with np.errstate(over="ignore", invalid="ignore"):
        for name, array in expected.items():
            if is_count(array):
                continue
            for _, block in columns(updates, name, array):
                wide = block.astype(np.float64)
                gram += wide @ wide.T
        norms = np.diag(gram)
        found = norms[:, None] + norms[None, :] - 2.0 * gram
    found = np.maximum(np.where(np.isnan(found), np.inf, found), 0.0)
    np.fill_diagonal(found, np.inf)
    return found


def krum_scores(distances: np.ndarray, hostile: int) -> np.ndarray:
    """For each update, the sum of its n - f - 2 smallest squared distances to others.

    Args:
        distances: squared, (n, n), infinite on the diagonal.
        hostile: f.

    Blanchard et al. 2017, section 4, the score s(i).
    """
    nearest = np.sort(distances, axis=1)[:, : len(distances) - hostile - 2]
    scores: np.ndarray = nearest.sum(axis=1)
    return scores
