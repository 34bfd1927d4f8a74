"""Shapley values of tree ensembles, exact, leaf by leaf and all leaves at once.

A leaf is reached where a row passes all the tests on the way to it. The tests on one player
(a column, or the inputs made of it) pass or fail together, so for a leaf a row is a pattern of
``d`` bits, d being the players on its way: the *failures*. Everything below depends on the row
through that pattern alone. The weights of Shapley values are a Beta integral,
``s! (d - 1 - s)! / d! = int t**s (1 - t)**(d - 1 - s) dt`` over [0, 1], whose integrand is a
polynomial: Gauss-Legendre nodes give it exactly (Owen 1972, "Multilinear Extensions of Games").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .interfaces import Floats
from .tree_models import Trees

__all__ = ["LeafPaths", "TreeGame", "leaf_paths"]

Codes = NDArray[np.uint64]

#: A table of all patterns up to this many players on the way to a leaf, pairs beyond.
_TABLE_PLAYERS = 10
_CHUNK_CELLS = 4_000_000


@dataclass(frozen=True)
class LeafPaths:
    """The leaves with ``players`` distinct players on their way.

    Args:
        nodes, turns, slots: (leaves, steps): the tests, whether left is the way (1) or right
            (0), and which of the leaf's players each speaks of; short ways repeat a test.
        owner: (leaves, players), the players.
        share: (leaves, players), the share of training rows that passes a player's tests.
        value: (leaves, outputs).
    """

    nodes: NDArray[np.int64]
    turns: NDArray[np.uint8]
    slots: NDArray[np.int64]
    owner: NDArray[np.int64]
    share: Floats
    value: Floats

    @property
    def players(self) -> int:
        """Distinct players on the way."""
        return int(self.owner.shape[1])

    def __len__(self) -> int:
        return len(self.nodes)

    def failures(self, decisions: NDArray[np.uint8], kind: Any = np.uint16) -> NDArray[Any]:
        """(leaves, rows): the bits of the players whose tests a row fails."""
        found = np.zeros((len(self), decisions.shape[1]), dtype=kind)
        for step in range(self.nodes.shape[1]):
            failed = decisions.take(self.nodes[:, step], axis=0) ^ self.turns[:, step, None]
            found |= failed.astype(kind) << self.slots[:, step, None].astype(kind)
        return found

    def part(self, rows: slice) -> LeafPaths:
        """Some of the leaves."""
        return LeafPaths(
            self.nodes[rows],
            self.turns[rows],
            self.slots[rows],
            self.owner[rows],
            self.share[rows],
            self.value[rows],
        )


def leaf_paths(trees: Trees, owner: NDArray[np.int64]) -> tuple[list[LeafPaths], Floats]:
    """All leaves by their number of players, and the sum of the leaves that are their tree.

    Args:
        owner: (inputs,), the player of each input.
    """
    found: dict[int, list[_Way]] = {}
    alone = np.zeros(trees.value.shape[1])
    for way in _ways(trees, owner):
        if not way.owner:
            alone += way.value
        elif way.value.any():
            found.setdefault(len(way.owner), []).append(way)
    return [_stacked(found[d]) for d in sorted(found)], alone


@dataclass
class _Way:
    nodes: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)
    share: list[float] = field(default_factory=list)
    value: Floats = field(default_factory=lambda: np.zeros(0))


def _ways(trees: Trees, owner: NDArray[np.int64]) -> Iterator[_Way]:
    feature, left, right = trees.feature.tolist(), trees.left.tolist(), trees.right.tolist()
    cover, owners = trees.cover.tolist(), owner.tolist()
    for root in trees.roots.tolist():
        stack: list[tuple[int, _Way]] = [(root, _Way())]
        while stack:
            node, way = stack.pop()
            if feature[node] < 0:
                way.value = trees.value[node]
                yield way
                continue
            player = owners[feature[node]]
            for child, turn in ((left[node], 1), (right[node], 0)):
                share = cover[child] / cover[node] if cover[node] > 0 else 0.5
                stack.append((child, _longer(way, node, turn, player, share)))


def _longer(way: _Way, node: int, turn: int, player: int, share: float) -> _Way:
    owner, shares = list(way.owner), list(way.share)
    if player in owner:
        slot = owner.index(player)
        shares[slot] *= share
    else:
        slot = len(owner)
        owner.append(player)
        shares.append(share)
    return _Way([*way.nodes, node], [*way.turns, turn], [*way.slots, slot], owner, shares)


def _stacked(ways: list[_Way]) -> LeafPaths:
    steps = max(len(way.nodes) for way in ways)

    def padded(name: str, kind: Any) -> Any:
        lists = [getattr(way, name) for way in ways]
        return np.array([entry + [entry[-1]] * (steps - len(entry)) for entry in lists], kind)

    return LeafPaths(
        padded("nodes", np.int64),
        padded("turns", np.uint8),
        padded("slots", np.int64),
        np.array([way.owner for way in ways]),
        np.array([way.share for way in ways]),
        np.array([way.value for way in ways]),
    )


class TreeGame:
    """An ensemble ready to explain rows, relative to a background or to its training rows.

    Args:
        background: inputs (b, inputs): absent players take the values of these rows, averaged
            (interventional). None: absent players take the way of the training rows that came
            to the node (path-dependent; Lundberg et al. 2020, "From local explanations to
            global understanding with explainable AI for trees", algorithm 1).
    """

    def __init__(
        self, trees: Trees, owner: NDArray[np.int64], columns: int, background: Floats | None
    ) -> None:
        self.trees, self.columns, self.background = trees, columns, background
        self.groups, alone = leaf_paths(trees, owner)
        self.base = alone
        self._tables: list[tuple[Floats, Any] | None] = []
        self._deep: list[Codes | None] = []
        for group in self.groups:
            self._prepare(group)

    def explain(self, inputs: Floats) -> Floats:
        """Contributions (rows, columns, outputs)."""
        nodes = len(self.trees.feature)
        leaves = max((len(group) for group in self.groups), default=1)
        at_once = max(1, min(512, 8 * _CHUNK_CELLS // max(nodes, leaves, 1)))
        parts = [
            self._explain(inputs[start : start + at_once])
            for start in range(0, len(inputs), at_once)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.columns, len(self.base)))

    def _explain(self, inputs: Floats) -> Floats:
        decisions = self.trees.decisions(inputs)
        outputs = len(self.base)
        total = np.zeros((self.columns * outputs, len(inputs)))
        for group, table, deep in zip(self.groups, self._tables, self._deep, strict=True):
            if table is not None:
                values, spread = table
                _add_from_table(total, group, values, spread, decisions)
                continue
            at_once = max(1, _CHUNK_CELLS // max(len(inputs), 1))
            for start in range(0, len(group), at_once):
                part = slice(start, start + at_once)
                few = group.part(part)
                if deep is not None:
                    _add_pairs(total, few, deep[part], decisions, outputs)
                else:
                    _add_paths(total, few, few.failures(decisions, np.uint64), outputs)
        return total.reshape(self.columns, outputs, len(inputs)).transpose(2, 0, 1)

    def _prepare(self, group: LeafPaths) -> None:
        shallow = group.players <= _TABLE_PLAYERS
        if self.background is None:
            self.base = self.base + group.share.prod(axis=1) @ group.value
            self._tables.append(self._spread(group, _path_table(group)) if shallow else None)
            self._deep.append(None)
            return
        counts, codes = self._background_patterns(group, shallow)
        reached = counts[:, 0] if shallow else (codes == 0).mean(axis=1)
        self.base = self.base + reached @ group.value
        table = _interventional_table(group, counts) if shallow else None
        self._tables.append(None if table is None else self._spread(group, table))
        self._deep.append(None if shallow else codes)

    def _spread(self, group: LeafPaths, table: Floats) -> tuple[Floats, Any]:
        return table, _spread(group, self.columns, len(self.base))

    def _background_patterns(self, group: LeafPaths, counted: bool) -> tuple[Floats, Codes]:
        """Shares of the background with each pattern (leaves, 2**d), or every row's pattern."""
        assert self.background is not None
        size = len(self.background)
        at_once = max(1, 8 * _CHUNK_CELLS // max(len(self.trees.feature), len(group)))
        width = 2**group.players if counted else 1
        counts = np.zeros(len(group) * width)
        codes = []
        for start in range(0, size, at_once):
            decisions = self.trees.decisions(self.background[start : start + at_once])
            found = group.failures(decisions, np.uint32 if counted else np.uint64)
            if counted:
                flat = found + np.arange(len(group), dtype=np.uint32)[:, None] * np.uint32(width)
                counts += np.bincount(flat.ravel(), minlength=len(counts))
            else:
                codes.append(found)
        together = np.concatenate(codes, axis=1) if codes else np.zeros((0, 0), np.uint64)
        return counts.reshape(len(group), width) / size, together


def _nodes(players: int) -> tuple[Floats, Floats]:
    """Gauss-Legendre on [0, 1], exact for the products of ``players - 1`` linear factors."""
    at, weight = np.polynomial.legendre.leggauss((players + 1) // 2)
    return 0.5 * (at + 1.0), 0.5 * weight


def _interventional_table(group: LeafPaths, counts: Floats) -> Floats:
    """(players, leaves, 2**players): a player's contribution to a leaf by the row's failures.

    At the node t, the background's patterns are folded in one player after the other: where the
    row passes, a passing background counts 1 and a failing one t; where it fails, a passing one
    1 - t and a failing one 0. What remains is the multilinear extension; its difference
    quotient along a player is integrated over t.
    """
    d, leaves = group.players, len(group)
    table = np.zeros((d, leaves, 2**d))
    for t, weight in zip(*_nodes(d), strict=True):
        fold = counts.reshape((leaves,) + (2,) * d)  # axis 1 is the highest bit
        for axis in range(1, d + 1):
            passing, failing = np.take(fold, 0, axis), np.take(fold, 1, axis)
            fold = np.stack([passing + t * failing, (1.0 - t) * passing], axis=axis)
        for player in range(d):
            axis = d - player
            passes, fails = np.take(fold, 0, axis), np.take(fold, 1, axis) / (1.0 - t)
            change = np.stack([(passes - fails) / t, -fails], axis=axis)
            table[player] += weight * change.reshape(leaves, -1)
    return table


def _path_table(group: LeafPaths) -> Floats:
    d = group.players
    bits = (np.arange(2**d)[None, :] >> np.arange(d)[:, None]) & 1
    passed = (1 - bits[:, None, :]).astype(np.float64)
    return _path_values(passed, group.share.T[:, :, None])


def _path_values(passed: Floats, share: Floats) -> Floats:
    """Contributions (players, leaves, patterns) of ``prod(passed t + share (1 - t))``."""
    d = passed.shape[0]
    found = np.zeros(np.broadcast_shapes(passed.shape, share.shape))
    for t, weight in zip(*_nodes(d), strict=True):
        factors = passed * t + share * (1.0 - t)
        found += weight * _products_of_others(factors)
    return found * (passed - share)


def _products_of_others(factors: Floats) -> Floats:
    """For each entry along axis 0, the product of all the others (zeros are no trouble)."""
    before, after = np.ones_like(factors), np.ones_like(factors)
    np.cumprod(factors[:-1], axis=0, out=before[1:])
    after[:-1] = np.cumprod(factors[:0:-1], axis=0)[::-1]
    return before * after


def _spread(group: LeafPaths, columns: int, outputs: int) -> Any:
    """From what a leaf's players get (players * leaves) to columns and outputs, as a product."""
    from scipy.sparse import csr_array

    leaf, output = np.nonzero(group.value)
    players = np.arange(group.players)[:, None]
    to = group.owner[leaf].T * outputs + output
    source = players * len(group) + leaf
    amounts = np.broadcast_to(group.value[leaf, output], to.shape)
    shape = (columns * outputs, group.players * len(group))
    return csr_array((amounts.ravel(), (to.ravel(), source.ravel())), shape=shape)


def _add_from_table(
    total: Floats, group: LeafPaths, table: Floats, spread: Any, decisions: NDArray[np.uint8]
) -> None:
    players, leaves, width = table.shape
    first = np.arange(leaves)[:, None] * width
    at_once = max(1, 2 * _CHUNK_CELLS // (players * leaves))
    for start in range(0, decisions.shape[1], at_once):
        part = slice(start, start + at_once)
        index = group.failures(decisions[:, part]) + first
        amounts = table.reshape(players, -1).take(index, axis=1)
        total[:, part] += spread @ amounts.reshape(players * leaves, -1)


def _add_paths(total: Floats, group: LeafPaths, failures: Codes, outputs: int) -> None:
    d, rows = group.players, failures.shape[1]
    at_once = max(1, _CHUNK_CELLS // (d * max(rows, 1)))
    for start in range(0, len(group), at_once):
        part = slice(start, start + at_once)
        few = group.part(part)
        bits = (failures[None, part] >> np.arange(d, dtype=np.uint64)[:, None, None]) & np.uint64(1)
        amounts = _path_values(
            (1 - bits.astype(np.int8)).astype(np.float64), few.share.T[:, :, None]
        )
        spread = _spread(few, len(total) // outputs, outputs)
        total += spread @ amounts.reshape(d * len(few), rows)


def _add_pairs(
    total: Floats, group: LeafPaths, codes: Codes, decisions: NDArray[np.uint8], outputs: int
) -> None:
    """Deep leaves: every row with every background row that does not fail where it fails.

    With n players that the row fails and p that the background row fails, a leaf is a game
    whose values are -p! (n - 1)! / (n + p)! for each of the n, and (p - 1)! n! / (n + p)! for
    each of the p (Lundberg et al. 2020, algorithm 3).
    """
    d, rows, size = group.players, decisions.shape[1], codes.shape[1]
    shifts, one = np.arange(d, dtype=np.uint64), np.uint64(1)
    weights = _pair_weights(d).ravel()
    failures = group.failures(decisions, np.uint64)
    at_once = max(1, _CHUNK_CELLS // (rows * size))
    for start in range(0, len(group), at_once):
        part = slice(start, start + at_once)
        few, mine, theirs = group.part(part), failures[part], codes[part]
        n, p = np.bitwise_count(mine).astype(np.intp), np.bitwise_count(theirs).astype(np.intp)
        share = weights.take(n[:, :, None] * (d + 1) + p[:, None, :])
        share *= (mine[:, :, None] & theirs[:, None, :]) == 0
        folded = np.ones((len(few), size, d + 1))  # the last column sums up
        folded[:, :, :d] = (theirs[:, :, None] >> shifts) & one
        folded[:, :, :d] /= np.maximum(p, 1)[:, :, None]
        sums = share @ folded / size
        loss = sums[:, :, d] / np.maximum(n, 1)
        amounts = sums[:, :, :d] - loss[:, :, None] * ((mine[:, :, None] >> shifts) & one)
        spread = _spread(few, len(total) // outputs, outputs)
        total += spread @ amounts.transpose(2, 0, 1).reshape(d * len(few), rows)


def _pair_weights(d: int) -> Floats:
    """p! n! / (n + p)!, by n and p; 0 where they cannot both be."""
    found = np.zeros((d + 1, d + 1))
    for n in range(d + 1):
        for p in range(d + 1 - n):
            found[n, p] = factorial(p) * factorial(n) / factorial(n + p)
    return found
