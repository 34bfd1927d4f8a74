"""What stands between a site and its worker: one run's rounds, and terms that are looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from truststram_lab.schemas.federation import Assignment

from .joined_work import JoinedWork
from .participation.terms import Terms

if TYPE_CHECKING:
    from truststram_lab.client.participants import ParticipantClient

__all__ = ["Noting", "SitePort"]


class Chooser(Protocol):
    """Whose rounds these are."""

    def is_mine(self, assignment: Assignment) -> bool: ...

    def saw(self, assignment: Assignment) -> None: ...

    def poll_s(self, wait_s: float) -> float: ...

    def pause(self) -> None: ...


class SitePort:
    """The platform as the worker sees it: the rounds of this site's run, and no others."""

    def __init__(self, client: ParticipantClient, site: Chooser) -> None:
        self._client, self._site = client, site
        self.plan, self.model = client.plan, client.model
        self.push, self.state = client.push, client.state
        self.assignments = self._assignments

    def _assignments(self, wait_s: float, known: str | None) -> list[Assignment]:
        found = self._client.assignments(self._site.poll_s(wait_s), known)
        mine = [assignment for assignment in found if self._site.is_mine(assignment)]
        if found and not mine:
            self._site.pause()  # the long poll would not wait
        for assignment in mine:
            self._site.saw(assignment)
        return mine[:1]

    def close(self) -> None:
        self._client.close()


class Noting:
    """A performer that shows the terms to somebody else, too."""

    def __init__(self, work: JoinedWork, note: Callable[[Terms], None]) -> None:
        self._note, self._objections = note, work.objections
        self.perform = work.perform

    def objections(self, terms: Terms) -> list[str]:
        self._note(terms)
        return self._objections(terms)
