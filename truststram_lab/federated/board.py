"""What this kernel measured of a run: sites, bytes, scores, time. Safe to read from any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from truststram_lab.schemas.federation import RoundReport, Run, RunReport, Score, SiteReport
from truststram_lab.schemas.run_privacy import RunPrivacy
from truststram_lab.schemas.simulation import ClientsReport

from .comparison import Evaluated
from .preparation import Prepared

__all__ = ["Board"]


class Board:
    """Collects measurements and gives them as an immutable :class:`RunReport`.

    A resumed run goes on from its former report: time and bytes add up.
    """

    def __init__(self, run: Run, prepared: Prepared, *, majority_share: float) -> None:
        self._lock = threading.Lock()
        former = run.report or RunReport()
        known = {site.name: site for site in former.sites}
        self._sites = {
            site.name: known.get(site.name)
            or SiteReport(
                name=site.name,
                rows=len(site.codes),
                class_rows=site.class_rows(prepared.signature),
            )
            for site in prepared.sites
        }
        # Sockets count from zero in every kernel.
        self._bytes_before = {
            name: (site.sent_bytes, site.received_bytes) for name, site in self._sites.items()
        }
        self._history = list(former.history)
        self._federated = former.federated
        self._pooled = former.pooled
        self._privacy: RunPrivacy | None = former.privacy
        self._clients: ClientsReport | None = former.clients
        self._fixed: dict[str, Any] = {
            "device": former.device,
            "held_out_rows": len(prepared.held_out.codes),
            "majority_share": majority_share,
        }
        self._elapsed_s = former.elapsed_s
        self._clock_since: float | None = None
        self._progress: str | None = None
        self._changes = 0

    def start_clock(self) -> None:
        """Count time from now; connections made from now on count their bytes from zero."""
        with self._changing():
            self._clock_since = time.monotonic()
            self._bytes_before = {
                name: (site.sent_bytes, site.received_bytes) for name, site in self._sites.items()
            }

    def stop_clock(self) -> None:
        """Time stands still from now on."""
        with self._changing():
            self._elapsed_s = self._elapsed_now()
            self._clock_since = None
            self._progress = None

    def site(self, name: str, status: str, *, sent: int = 0, received: int = 0) -> None:
        """A site's state, and the bytes its socket has carried since the clock was started."""
        with self._changing():
            before_sent, before_received = self._bytes_before[name]
            self._update(
                name,
                status=status,
                sent_bytes=max(self._sites[name].sent_bytes, before_sent + sent),
                received_bytes=max(self._sites[name].received_bytes, before_received + received),
            )

    def all_sites(self, status: str) -> None:
        """Give every site one state."""
        with self._changing():
            for name in self._sites:
                self._update(name, status=status)

    def device(self, name: str) -> None:
        """The torch device that this kernel trains on; known once torch is loaded."""
        with self._changing():
            self._fixed["device"] = name

    def round_opened(self, pushed: list[str]) -> None:
        """A round begins, or goes on with the sites that have pushed already."""
        with self._changing():
            for name in self._sites:
                self._update(name, status="pushed" if name in pushed else "waiting")

    def pushed(self) -> list[str]:
        """The sites whose update of this round is in, in the plan's order."""
        with self._lock:
            return [name for name, site in self._sites.items() if site.status == "pushed"]

    def round_scored(self, number: int, evaluated: Evaluated) -> None:
        """The global model after training round ``number``; once a round."""
        with self._changing():
            if all(entry.number != number for entry in self._history):
                self._history.append(
                    RoundReport(
                        number=number, accuracy=evaluated.score.accuracy, loss=evaluated.loss
                    )
                )
            self._federated = evaluated.score

    def alone(self, name: str, score: Score) -> None:
        """What one site gets by itself."""
        with self._changing():
            self._update(name, alone=score)

    def pooled(self, score: Score) -> None:
        """What all rows in one place would get."""
        with self._changing():
            self._pooled = score

    def clients(self, found: ClientsReport) -> None:
        """What the virtual clients of a host have, and get."""
        with self._changing():
            self._clients = found

    def privacy(self, found: RunPrivacy | None) -> None:
        """What the run has spent of its owner's privacy budget so far."""
        with self._changing():
            self._privacy = found

    def report(self) -> RunReport:
        """Everything, as of now."""
        with self._lock:
            return RunReport(
                sites=list(self._sites.values()),
                history=list(self._history),
                federated=self._federated,
                pooled=self._pooled,
                privacy=self._privacy,
                clients=self._clients,
                elapsed_s=self._elapsed_now(),
                **self._fixed,
            )

    @property
    def progress(self) -> str | None:
        """What this kernel is doing at the moment, in a few words."""
        return self._progress

    @progress.setter
    def progress(self, words: str) -> None:
        with self._changing():
            self._progress = words

    @property
    def revision(self) -> tuple[int, int]:
        """Another one after every change, and after every second that the clock runs."""
        with self._lock:
            return self._changes, int(self._elapsed_now())

    @property
    def spending(self) -> RunPrivacy | None:
        """What the run has spent so far; None without privacy."""
        with self._lock:
            return self._privacy

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock:
            self._changes += 1
            yield

    def _elapsed_now(self) -> float:
        running = 0.0 if self._clock_since is None else time.monotonic() - self._clock_since
        return self._elapsed_s + running

    def _update(self, name: str, **changes: Any) -> None:
        self._sites[name] = self._sites[name].model_copy(update=changes)
