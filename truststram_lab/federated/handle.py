"""What every view of a run has in common, whoever does the work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from truststram_lab.render import Card, LiveCard, live_run_card, run_card
from truststram_lab.schemas.federation import Run

if TYPE_CHECKING:
    from truststram_lab.client import TrustStramClient

__all__ = ["RunHandle", "is_settled"]


def is_settled(run: Run) -> bool:
    """Whether nothing more will happen: stopped, failed, or completed and compared."""
    if run.status in ("stopped", "failed"):
        return True
    if not run.plan.simulated:
        # Only the owner of all rows can compare with each site alone and with the rows pooled.
        return run.status == "completed"
    report = run.report
    if run.plan.hosted is not None:
        if run.plan.signature is None:
            # Of named arrays nobody but their kernel knows more.
            return run.status == "completed"
        compared = report is not None and report.clients is not None
        return (
            run.status == "completed"
            and compared
            and report is not None
            and (report.pooled is not None)
        )
    return (
        run.status == "completed"
        and report is not None
        and report.pooled is not None
        and all(site.alone is not None for site in report.sites)
    )


class RunHandle(ABC):
    """A run by its name: what it is, how it stands, and its card."""

    def __init__(self, client: TrustStramClient, run: Run) -> None:
        self._client = client
        self._run = run

    @property
    def name(self) -> str:
        """The run's name on the platform, such as ``breast-cancer-3``."""
        return self._run.name

    @property
    def model(self) -> str:
        """The name of the model that the run trains."""
        return self._run.plan.model

    @property
    def status(self) -> str:
        """``statistics``, ``training``, ``stopped``, ``completed`` or ``failed``."""
        return self._run.status

    @property
    @abstractmethod
    def active(self) -> bool:
        """Whether this kernel works on it, or follows it, now."""

    def snapshot(self) -> Run:
        """The run as it stands now."""
        return self._run

    def card(self) -> Card:
        """The run's card, as static HTML and text."""
        return run_card(self.snapshot())

    def live_card(self) -> LiveCard:
        """What is shown in the card's place while the run goes on."""
        return live_run_card(self.snapshot())

    def revision(self) -> object:
        """Another one whenever the card would tell something new."""
        run = self._run
        return run.last_event, run.updated_at, run.status

    @abstractmethod
    def request_stop(self) -> None:
        """Ask for the stop and return at once; safe from any thread and any callback."""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, object]:
        return self.card().bundle()

    def __repr__(self) -> str:
        run = self._run
        return (
            f"<{type(self).__name__} {run.name}: {run.status}, round {run.round}/{run.plan.rounds}>"
        )
