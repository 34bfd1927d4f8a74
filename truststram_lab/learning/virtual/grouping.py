"""Which clients train together, so that filling up to the longest wastes at most half.

A group's step takes as many rows a client as its largest batch. Clients with more rows than a
batch fill at least half of theirs on average (k batches hold more than k - 1 full ones); those
with fewer rows go with clients of at most twice as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Group", "groups_of", "waste"]


@dataclass(frozen=True)
class Group:
    """Places among the works, those with the most steps first."""

    members: tuple[int, ...]
    private: bool


def groups_of(
    rows: Sequence[int], steps: Sequence[int], private: Sequence[bool], batch_size: int, chunk: int
) -> list[Group]:
    """Groups of at most ``chunk`` works.

    Args:
        rows, steps, private: of each work.
    """

    def fill(place: int) -> int:
        return min(rows[place], batch_size)

    order = sorted(range(len(rows)), key=lambda place: (private[place], -fill(place), place))
    found: list[list[int]] = []
    for place in order:
        first = found[-1][0] if found else None
        if (
            first is None
            or len(found[-1]) == chunk
            or private[first] != private[place]
            or (not private[place] and 2 * fill(place) < fill(first))
        ):
            found.append([])
        found[-1].append(place)
    # Whoever has more steps goes on when the others are done: always the first of the group.
    return [
        Group(tuple(sorted(group, key=lambda place: (-steps[place], place))), private[group[0]])
        for group in found
    ]


def waste(used: int, filled: int) -> float:
    """The share of all rows computed that only filled up."""
    return 1.0 - used / filled if filled else 0.0
