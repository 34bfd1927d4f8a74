"""Dealing rows to any number of simulated sites; every row is dealt exactly once.

Each function returns one sorted int64 array of row places a site. With many sites a random
split leaves some with nothing, so ``top_up`` moves rows to those from the largest ones, and
says how many it moved.
"""

from __future__ import annotations

import heapq

import numpy as np

from ..exceptions import InvalidInputError
from ..schemas.splits import Split
from .partition import dirichlet_split

__all__ = ["deal_rows", "iid_split", "quantity_split", "shards_split", "top_up"]


def deal_rows(
    y: np.ndarray,
    sites: int,
    split: Split,
    rng: np.random.Generator,
    *,
    min_rows: int,
    min_classes: int | None,
) -> tuple[list[np.ndarray], int]:
    """Deal rows as ``split`` says; also how many rows were moved to sites that had too few.

    Args:
        y: class places, int (n,).
        min_rows: that every site gets.
        min_classes: of each site with ``dirichlet``, whose draw is repeated until it is so;
            None repeats nothing and moves rows, as many sites need.

    Raises:
        InvalidInputError: the rows are too few, or no draw served.
    """
    _check(len(y), sites, min_rows)
    if split.kind == "iid":
        return iid_split(len(y), sites, rng), 0
    if split.kind == "shards":
        return shards_split(y, sites, split.shards or 2, rng), 0
    alpha = 0.5 if split.alpha is None else split.alpha
    if split.kind == "quantity":
        return quantity_split(len(y), sites, alpha, rng, min_rows=min_rows), 0
    if min_classes is not None:
        drawn = dirichlet_split(y, sites, alpha, rng, min_rows=min_rows, min_classes=min_classes)
        return drawn, 0
    return top_up(dirichlet_split(y, sites, alpha, rng, min_rows=0, min_classes=0), y, min_rows)


def iid_split(rows: int, sites: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Rows dealt as cards are: sizes differ by one at most, classes by chance alone."""
    return [np.sort(part) for part in np.array_split(rng.permutation(rows), sites)]


def shards_split(
    y: np.ndarray, sites: int, shards: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """``shards`` pieces for each site, of the rows sorted by class and cut into equal pieces.

    Raises:
        InvalidInputError: there are fewer rows than pieces.

    McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", section 3, the pathological split. https://arxiv.org/abs/1602.05629
    """
    pieces = sites * shards
    if pieces > len(y):
        raise InvalidInputError(
            f"{len(y)} rows cannot be cut into {pieces:,} shards; choose "
            f"{max(1, len(y) // shards):,} sites or fewer, or shards:1.",
            field="split",
        )
    # Shuffled within a class, so that the table's order decides nothing.
    order = rng.permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    cut = np.array_split(order, pieces)
    hands = rng.permutation(pieces).reshape(sites, shards)
    return [np.sort(np.concatenate([cut[piece] for piece in hand])) for hand in hands]


def quantity_split(
    rows: int, sites: int, alpha: float, rng: np.random.Generator, *, min_rows: int = 1
) -> list[np.ndarray]:
    """Sizes from a symmetric Dirichlet distribution on top of ``min_rows`` each; classes by chance.

    Li et al. 2022, "Federated Learning on Non-IID Data Silos: An Experimental Study",
    section 4.3, quantity skew. https://arxiv.org/abs/2102.02079
    """
    free = rows - sites * min_rows
    cuts = np.rint(np.cumsum(rng.dirichlet(np.full(sites, alpha))) * free).astype(np.int64)
    cuts[-1] = free
    ends = cuts + min_rows * np.arange(1, sites + 1)
    return [np.sort(part) for part in np.split(rng.permutation(rows), ends[:-1])]


def top_up(parts: list[np.ndarray], y: np.ndarray, min_rows: int) -> tuple[list[np.ndarray], int]:
    """Give every site ``min_rows`` rows by moving single rows away from the largest site.

    The row that moves is of the class of which that site has most, so its own mix changes
    least. The caller has made sure that there are enough rows.
    """
    places = [list(part) for part in parts]
    needy = [site for site, part in enumerate(places) if len(part) < min_rows]
    largest = [(-len(part), site) for site, part in enumerate(places) if len(part) > min_rows]
    heapq.heapify(largest)
    moved = 0
    for site in needy:
        while len(places[site]) < min_rows:
            size, giver = heapq.heappop(largest)
            rows = places[giver]
            codes, counts = np.unique(y[rows], return_counts=True)
            at = int(np.flatnonzero(y[rows] == codes[counts.argmax()])[-1])
            places[site].append(rows.pop(at))
            moved += 1
            if -size - 1 > min_rows:
                heapq.heappush(largest, (size + 1, giver))
    return [np.sort(np.asarray(part, dtype=np.int64)) for part in places], moved


def _check(rows: int, sites: int, min_rows: int) -> None:
    if sites < 1:
        raise InvalidInputError(
            f"Rows cannot be dealt to {sites} sites; choose 1 or more.", field="clients"
        )
    least = max(min_rows, 1)
    if sites * least > rows:
        raise InvalidInputError(
            f"{rows:,} rows to train on are too few for {sites:,} sites of at least {least} "
            f"row{'s' * (least != 1)}; choose --clients {max(1, rows // least)} or fewer.",
            field="clients",
        )
