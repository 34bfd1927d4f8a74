"""Which sites are there: whoever asked for work lately. Kept in memory only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from truststram_lab.exceptions import ConflictError

__all__ = ["HOLD_S", "PRESENT_S", "Presence"]

#: A site is present for this long after it asked, in seconds.
PRESENT_S = 60.0
#: A site's identity is its device's for this long after the device asked, in seconds.
HOLD_S = 15.0


@dataclass
class _Site:
    last_s: float
    #: long polls that wait now
    waiting: int = 0
    device: str | None = None
    device_last_s: float = 0.0
    device_waiting: int = 0
    device_since: str = ""


class Presence:
    """Who asked when.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sites: dict[str, _Site] = {}
        self._started_s = clock()

    def seen(self, principal_id: str) -> None:
        """The site made a request."""
        with self._lock:
            self._site(principal_id)

    def left(self, principal_id: str) -> None:
        """The site has said that it does no more, and is not there until it asks again."""
        with self._lock:
            site = self._sites.get(principal_id)
            if site is not None:
                site.last_s = self._clock() - PRESENT_S

    @contextmanager
    def asking(self, principal_id: str, name: str, device: str | None) -> Iterator[None]:
        """The site asks for work, and is there as long as it waits for the answer.

        Args:
            name: of the site, for the refusal's sentence.
            device: what the asking device calls itself, if it says so.

        Raises:
            ConflictError: another device has asked as this site just now.
        """
        with self._lock:
            site = self._site(principal_id)
            mine = device is not None
            if mine:
                self._hold(site, name, str(device))
            site.waiting += 1
            site.device_waiting += mine
        try:
            yield
        finally:
            with self._lock:
                now = self._clock()
                site.waiting -= 1
                site.last_s = now
                if mine:
                    site.device_waiting -= 1
                    site.device_last_s = now

    def _site(self, principal_id: str) -> _Site:
        now = self._clock()
        site = self._sites.setdefault(principal_id, _Site(now))
        site.last_s = now
        return site

    def _hold(self, site: _Site, name: str, device: str) -> None:
        now = self._clock()
        held = site.device_waiting > 0 or now - site.device_last_s < HOLD_S
        if site.device is not None and site.device != device and held:
            raise ConflictError(
                f"Device {site.device!r} takes part as {name!r} since {site.device_since}; end it "
                "there, or have this device invited under a name of its own."
            )
        if site.device != device:
            site.device = device
            site.device_since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        site.device_last_s = now

    def present(self, principal_ids: Collection[str], lately: Collection[str] = ()) -> set[str]:
        """Those of the sites that are there.

        Args:
            lately: sites that count as present in the first minute of this process, because
                the process before it had their updates.
        """
        with self._lock:
            now = self._clock()
            fresh = now - self._started_s < PRESENT_S
            found = {one for one in principal_ids if fresh and one in lately}
            for one in principal_ids:
                site = self._sites.get(one)
                if site is not None and (site.waiting or now - site.last_s < PRESENT_S):
                    found.add(one)
            return found
