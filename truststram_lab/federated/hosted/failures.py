"""Who is asked in a round, and what goes wrong there: drawn from the run's seed alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from truststram_lab.schemas.simulation import Failures, Hosted, Hostile

__all__ = ["Turn", "attacked", "flipped", "hostile_clients", "turns_of"]

#: Parts of the seed, so that no two draws share a stream.
_ASKED, _FAILED, _HOSTILE = 0xA5C, 0xFA1, 0xBAD


@dataclass(frozen=True)
class Turn:
    """One client's part in a round: its place, and the epochs that it manages."""

    client: int
    epochs: int


def turns_of(
    hosted: Hosted, seed: int, number: int, epochs: int, *, asked: np.ndarray | None = None
) -> list[Turn]:
    """The clients whose update arrives in training round ``number``, in the plan's order.

    A share of all is asked, without replacement. Each asked client is drawn twice, for dropping
    out and for straggling, whether or not the plan has such failures: raising one chance
    therefore only adds failures to those of the lower one.

    Args:
        epochs: of a client that has time for all.
        asked: the places of those asked, rising, where the seed must not tell who they are.
    """
    places = _asked(hosted, seed, number) if asked is None else asked
    chances = _rng(seed, _FAILED, number).random((hosted.clients, 3))[places]
    failures: Failures = hosted.failures
    turns = []
    for place, (drops, straggles, share) in zip(places.tolist(), chances, strict=True):
        if drops < failures.drop:
            continue
        done = epochs
        if straggles < failures.stragglers:
            # Li et al. 2020, "Federated Optimization in Heterogeneous Networks", section 5.2:
            # between one epoch and all but the last.
            done = 0 if epochs == 1 else 1 + int(share * (epochs - 1))
        if done:
            turns.append(Turn(place, done))
    return turns


def _asked(hosted: Hosted, seed: int, number: int) -> np.ndarray:
    asked = max(1, round(hosted.fraction * hosted.clients), hosted.strategy.least_updates)
    if asked >= hosted.clients:
        return np.arange(hosted.clients)
    return np.sort(_rng(seed, _ASKED, number).choice(hosted.clients, asked, replace=False))


def hostile_clients(hosted: Hosted, seed: int) -> frozenset[int]:
    """The places of the clients that attack in every round: the share, rounded to a count."""
    hostile = hosted.failures.hostile
    if hostile is None:
        return frozenset()
    count = round(hostile.share * hosted.clients)
    chosen = _rng(seed, _HOSTILE, 0).permutation(hosted.clients)[:count]
    return frozenset(chosen.tolist())


def flipped(codes: np.ndarray, classes: int) -> np.ndarray:
    """Labels counted from the other end: class k becomes classes - 1 - k.

    Fang et al. 2020, "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning",
    section 5.1. https://arxiv.org/abs/1911.11815
    """
    turned: np.ndarray = classes - 1 - codes
    return turned


def attacked(update: dict[str, np.ndarray], hostile: Hostile) -> dict[str, np.ndarray]:
    """What a hostile client sends instead of its update."""
    if hostile.attack == "label_flip":
        return update
    factor = -abs(hostile.factor) if hostile.attack == "sign_flip" else hostile.factor
    return {
        name: (array * factor).astype(array.dtype) if array.dtype.kind == "f" else array
        for name, array in update.items()
    }


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
