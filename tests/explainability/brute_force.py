"""Shapley values from their definition, with nothing of the package: slow, and plain to check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np


def shapley(game: Callable[[frozenset[int]], np.ndarray], players: int) -> np.ndarray:
    """(players, outputs): each player's weighted marginal contributions to every coalition."""
    value = {
        frozenset(s): np.atleast_1d(game(frozenset(s)))
        for size in range(players + 1)
        for s in combinations(range(players), size)
    }
    phi = []
    for i in range(players):
        others = [p for p in range(players) if p != i]
        total = 0.0
        for size in range(players):
            weight = factorial(size) * factorial(players - size - 1) / factorial(players)
            for s in combinations(others, size):
                total = total + weight * (value[frozenset(s) | {i}] - value[frozenset(s)])
        phi.append(total)
    return np.array(phi)


def interventional(
    predict: Callable[[Any], np.ndarray], rows: np.ndarray, background: np.ndarray
) -> np.ndarray:
    """(n, columns, outputs): absent columns take the background's values, one row at a time."""
    found = []
    for row in rows:

        def game(coalition: frozenset[int], row: np.ndarray = row) -> np.ndarray:
            points = background.copy()
            for column in coalition:
                points[:, column] = row[column]
            outputs = np.asarray(predict(points), dtype=np.float64)
            return outputs.reshape(len(points), -1).mean(axis=0)

        found.append(shapley(game, rows.shape[1]))
    return np.array(found)


def path_dependent(trees: Sequence[Any], scale: Sequence[float], row: np.ndarray) -> np.ndarray:
    """(columns,): absent columns follow both branches by cover; scikit-learn's single trees."""

    def expected(tree: Any, coalition: frozenset[int], node: int = 0) -> float:
        if tree.children_left[node] < 0:
            return float(tree.value[node].ravel()[-1])
        left, right = tree.children_left[node], tree.children_right[node]
        if tree.feature[node] in coalition:
            goes_left = np.float32(row[tree.feature[node]]) <= tree.threshold[node]
            return expected(tree, coalition, left if goes_left else right)
        weight = tree.weighted_n_node_samples
        return (
            weight[left] * expected(tree, coalition, left)
            + weight[right] * expected(tree, coalition, right)
        ) / weight[node]

    def game(coalition: frozenset[int]) -> np.ndarray:
        return np.array(
            [sum(s * expected(t, coalition) for t, s in zip(trees, scale, strict=True))]
        )

    return shapley(game, len(row))[:, 0]
