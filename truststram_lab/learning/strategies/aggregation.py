"""A round of any strategy: from the updates to the next global model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...exceptions import InvalidInputError
from ...schemas.strategies import (
    AnyStrategy,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedProx,
    FedYogi,
    Krum,
    Median,
    MultiKrum,
    Scaffold,
    TrimmedMean,
)
from ..weights import State
from .blocks import add_to, like
from .coordinates import median, trimmed_mean
from .krum import krum, multi_krum
from .mean import Mean
from .moments import adaptive_step, momentum_step, read_memory
from .reading import HeldUpdates, Updates
from .scaffold import expected_upload, scaffold_step

__all__ = ["Aggregate", "aggregate", "expected_update", "shared_with_sites"]


@dataclass(frozen=True)
class Aggregate:
    """What a round comes to."""

    #: the next global model
    state: State
    #: what the platform hands to the next round's ``aggregate``; empty for most strategies
    server_state: State = field(default_factory=dict)
    #: places of the updates that Krum believed; None where every update counts
    kept: tuple[int, ...] | None = None


def aggregate(
    strategy: AnyStrategy,
    base: Mapping[str, np.ndarray],
    updates: Updates | Sequence[Mapping[str, np.ndarray]],
    weights: Sequence[float],
    server_state: Mapping[str, np.ndarray] | None = None,
    *,
    participation: float = 1.0,
) -> Aggregate:
    """The next global model, from this round's updates.

    A pure function of its arguments, to the bit. Updates are taken in their order, which
    should be the plan's: then the order of arrival changes nothing.

    Args:
        strategy: with its parameters.
        base: the global model that the sites started from; unchanged.
        updates: what each site's weights changed by, with the names, shapes and types of
            ``expected_update``; a list, or something that reads them from files.
        weights: one positive number a site, usually its rows. Robust rules ignore them.
        server_state: what the former round's aggregate returned; None in the first round.
        participation: for SCAFFOLD, the share of all sites (or rows) that this round has.

    Raises:
        InvalidInputError: too few updates for the strategy, weights that do not fit, a server
            state of another run, or a result that is not finite.
        UpdateRejectedError: an update does not look as expected, or is not finite.
    """
    held = HeldUpdates(updates) if isinstance(updates, Sequence) else updates
    if len(weights) != len(held):
        raise InvalidInputError(
            f"{len(held)} updates came for {len(weights)} weights; give one update and one weight "
            "a site, at least one.",
            field="weights",
        )
    memory = server_state or {}
    kept: tuple[int, ...] | None = None
    if isinstance(strategy, Median | TrimmedMean | Krum | MultiKrum):
        change, kept = _robust(strategy, base, held)
        read_memory(change, memory, {})
        return Aggregate(add_to(base, change), {}, kept)
    change = _mean(held, weights, expected_update(strategy, base))
    # A server rate can carry a finite mean beyond its type; the last addition says so.
    with np.errstate(over="ignore", invalid="ignore"):
        change, new_memory = _step(strategy, change, memory, participation)
    return Aggregate(add_to(base, change), new_memory)


def expected_update(strategy: AnyStrategy, base: Mapping[str, np.ndarray]) -> State:
    """Names, shapes and types of a site's update, for ``weights.check_update``; no values."""
    return expected_upload(base) if isinstance(strategy, Scaffold) else like(base)


def shared_with_sites(strategy: AnyStrategy, server_state: Mapping[str, np.ndarray]) -> State:
    """What of the server state a site needs besides the model: SCAFFOLD's c, else nothing."""
    return dict(server_state) if isinstance(strategy, Scaffold) else {}


def _mean(updates: Updates, weights: Sequence[float], expected: State) -> State:
    mean = Mean(weights, expected)
    for place in range(len(updates)):
        mean.add_from(updates, place)
    return mean.result()


def _robust(
    strategy: Median | TrimmedMean | Krum | MultiKrum,
    base: Mapping[str, np.ndarray],
    updates: Updates,
) -> tuple[State, tuple[int, ...] | None]:
    expected = like(base)
    if isinstance(strategy, Median):
        return median(updates, expected), None
    if isinstance(strategy, TrimmedMean):
        return trimmed_mean(updates, expected, strategy.fraction), None
    if isinstance(strategy, Krum):
        return krum(updates, expected, strategy.hostile)
    return multi_krum(updates, expected, strategy.hostile, strategy.keep)


def _step(
    strategy: FedAvg | FedProx | FedAvgM | FedAdam | FedYogi | Scaffold,
    mean: State,
    memory: Mapping[str, np.ndarray],
    participation: float,
) -> tuple[State, State]:
    if isinstance(strategy, FedAvgM):
        return momentum_step(strategy, mean, memory)
    if isinstance(strategy, FedAdam | FedYogi):
        return adaptive_step(strategy, mean, memory)
    if isinstance(strategy, Scaffold):
        return scaffold_step(strategy, mean, memory, participation)
    read_memory(mean, memory, {})
    return mean, {}
