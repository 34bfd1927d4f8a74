"""What a participant needs from outside: a platform to speak to, and somebody who does the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from truststram_lab.schemas.federation import Assignment, RoundPlan, UpdateReceipt
from truststram_lab.schemas.participation import ParticipationState, ParticipationUpdate

from .terms import Terms

__all__ = ["Made", "Performer", "RoundsPort", "TellState"]

#: Says that the work of a round reached a state.
TellState = Callable[[ParticipationState], None]


class RoundsPort(Protocol):
    """The rounds of one platform, for one site; ``client.ParticipantClient`` is one."""

    @property
    def assignments(self) -> Callable[[float, str | None], list[Assignment]]:
        """Open rounds of this site, waiting up to so many seconds for one; the plan of that
        digest is known and need not be repeated."""

    @property
    def plan(self) -> Callable[[str], RoundPlan]:
        """The constant part of a run's terms, by its SHA-256."""

    @property
    def model(self) -> Callable[[str], bytes]:
        """The weights that the round starts from."""

    @property
    def push(self) -> Callable[[str, bytes], UpdateReceipt]:
        """Hand in the round's update; the same bytes again change nothing."""

    @property
    def state(self) -> Callable[[str, ParticipationUpdate], None]:
        """Say how far the site is."""

    def close(self) -> None:
        """End the connection, also under a call that waits."""


@dataclass(frozen=True)
class Made:
    """What a round's work gives: the update's bytes, and the site's own state after it."""

    body: bytes = field(repr=False)
    state: Mapping[str, bytes | None] = field(default_factory=dict, repr=False)


class Performer(Protocol):
    """Does the local work of a round."""

    def objections(self, terms: Terms) -> list[str]:
        """What the site's rules say against the round, one sentence each."""

    def perform(
        self, terms: Terms, model: bytes | None, tell: TellState, own: Callable[[str], bytes | None]
    ) -> Made:
        """Make the update; ``own`` reads a file of the site's own state.

        Raises:
            Stopped: the stop was asked for; nothing is stored.
        """
