"""What the verbs about federations and joining return: data with a card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truststram_lab.render import (
    Card,
    federation_card,
    federations_card,
    invitations_card,
    notice_card,
    preview_card,
)
from truststram_lab.schemas.federation import Federation, Run
from truststram_lab.schemas.participation import Preflight
from truststram_lab.schemas.privacy import PrivacyBudget
from truststram_lab.schemas.sites import SitePreview, SiteView

from .results import Answer

__all__ = ["Exported", "FederationDetail", "FederationList", "Invitations", "JoinPreview"]


@dataclass(frozen=True, repr=False)
class FederationList(Answer, Sequence[Federation]):
    """The federations of the organisation, newest first."""

    items: list[Federation]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def card(self) -> Card:
        return federations_card(self.items)


@dataclass(frozen=True, repr=False)
class FederationDetail(Answer):
    """One federation: its sites and what keeps their tables apart, its runs, its budget."""

    federation: Federation
    preflight: Preflight
    runs: list[Run]
    budget: PrivacyBudget
    said: str = ""
    own: list[SiteView] = field(default_factory=list)

    def card(self) -> Card:
        return federation_card(
            self.federation,
            self.preflight,
            runs=self.runs,
            budget=self.budget,
            own=self.own,
            said=self.said,
        )


class Invitations(Answer):
    """What each invited site runs. The card shows the tokens the first time and never again.

    Args:
        lines: site, command, token.
        setting, same_user: see ``render.invitations_card``.
    """

    def __init__(
        self,
        federation: str,
        lines: Sequence[tuple[str, str, str]],
        *,
        setting: Sequence[str],
        same_user: bool,
    ) -> None:
        self.federation = federation
        self._lines = tuple(lines)
        self._setting, self._same_user = tuple(setting), same_user
        self._shown = False

    @property
    def sites(self) -> list[str]:
        """Who was invited, in the order of the line."""
        return [site for site, _, _ in self._lines]

    def token(self, site: str) -> str:
        """The token of a site, to hand it over by other means than this notebook.

        Raises:
            KeyError: the site is not among ``sites``.
        """
        return {name: token for name, _, token in self._lines}[site]

    def hide(self) -> None:
        """Show the tokens no more; ``token`` still gives them."""
        self._shown = True

    def card(self) -> Card:
        card = invitations_card(
            self.federation,
            self._lines,
            setting=self._setting,
            same_user=self._same_user,
            shown=self._shown,
        )
        self._shown = True
        return card

    def __repr__(self) -> str:
        # Never by the way: a repr gets into logs.
        return f"<Invitations of {self.federation}: {', '.join(self.sites)}>"


@dataclass(frozen=True, repr=False)
class JoinPreview(Answer):
    """What would leave the site, before it does."""

    preview: SitePreview

    def card(self) -> Card:
        return preview_card(self.preview)


@dataclass(frozen=True, repr=False)
class Exported(Answer):
    """A script for an unattended site was written to ``path``."""

    path: Path
    text: str = field(repr=False)

    def card(self) -> Card:
        return notice_card(self.text)
