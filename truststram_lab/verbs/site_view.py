"""A site that takes part, live: in a notebook as a card, in a terminal as lines."""

from __future__ import annotations

import sys
import threading
import time
import uuid
import weakref
from typing import Any

from truststram_lab.federated.open_run import OpenRun
from truststram_lab.federated.site_run import SiteRun
from truststram_lab.widgets import view_of
from truststram_lab.widgets.kernel import attended, execution_count, in_kernel, publish, shell
from truststram_lab.widgets.live import LiveView, View

from .participant_results import Invitations

__all__ = ["follow_run", "follow_site", "show"]

#: How often a site in the background is looked at.
_LOOK_S = 0.1

#: site or run -> number of the cell that shows it; forgotten with it
_shown: weakref.WeakKeyDictionary[Any, int | None] = weakref.WeakKeyDictionary()


class SiteLines:
    """A site in a terminal: one line a state, then the card's text."""

    def __init__(self, site: SiteRun) -> None:
        self._site = site
        self._seen = 0.0

    def show(self) -> None:
        """Say what begins."""
        sys.stdout.write(f"{self._site.name}: takes part; Ctrl-C stops\n")

    def refresh(self, force: bool = False) -> None:  # noqa: ARG002 - the views' one signature
        """Write a line for every state that is new."""
        for event in self._site.snapshot().events:
            if event.at > self._seen:
                said = f": {event.detail}" if event.detail else ""
                sys.stdout.write(f"{event.kind} {event.number}  {event.state}{said}\n")
                self._seen = event.at
        sys.stdout.flush()

    def close(self) -> None:
        """Write the result's text."""
        self.refresh()
        sys.stdout.write(self._site.card().text + "\n")


def follow_site(site: SiteRun) -> SiteRun:
    """Join, show it live, and wait for the end; Kernel > Interrupt stops within two seconds.

    Raises:
        RunStoppedError: it was stopped; joining again goes on.
        TrustStramException: it failed; the sentence says why.
    """
    view = _view_of(site)
    try:
        site.start()
        view.show()
        site.wait(tick=view.refresh)
    except KeyboardInterrupt:
        site.stop()
        raise site.stopped_error() from None
    finally:
        view.close()
    return site


def follow_run(run: OpenRun) -> OpenRun:
    """Show a run of other people's sites live and wait; Kernel > Interrupt stops it.

    Raises:
        RunStoppedError, ConflictError: as ``OpenRun.wait``.
    """
    _shown[run] = execution_count()
    view = view_of(run)
    try:
        run.start()
        view.show()
        run.wait(tick=view.refresh)
    except KeyboardInterrupt:
        run.stop()
        raise run.stopped_error() from None
    finally:
        view.close()
    return run


def show(found: SiteRun | OpenRun | Invitations) -> None:
    """Show a cell's result, unless the cell shows it already; live while it goes on."""
    if isinstance(found, Invitations):
        _show_tokens(found)
        return
    count = execution_count()
    if count is not None and _shown.get(found) == count:
        return
    if not (in_kernel() and found.active):
        publish(found.card().bundle())
        return
    view: View
    if isinstance(found, OpenRun):
        hint = f"Stop: %ts_runs {found.name} stop"
        view = view_of(found, hint=hint, waits=False)
        _shown[found] = count
    else:
        view = _view_of(found, waits=False)
    view.show()

    def keep_up() -> None:
        while found.active:
            time.sleep(_LOOK_S)
            view.refresh()
        view.close()

    threading.Thread(target=keep_up, name="live view", daemon=True).start()


def _show_tokens(found: Invitations) -> None:
    """Until the next cell runs, so that they are not in what is saved and shared."""
    if in_kernel() and not attended():
        # Nobody is there to read them, and the file would keep them.
        found.hide()
    if not (in_kernel() and attended()):
        publish(found.card().bundle())
        return
    events = shell().events
    display_id = f"truststram-{uuid.uuid4().hex}"
    publish(found.card().bundle(), display_id)

    def take_out(*_: object) -> None:
        events.unregister("pre_run_cell", take_out)
        publish(found.card().bundle(), display_id, update=True)

    events.register("pre_run_cell", take_out)


def _view_of(site: SiteRun, *, waits: bool = True) -> Any:
    _shown[site] = execution_count()
    if not in_kernel():
        return SiteLines(site)
    hint = None if waits else "Stop: .stop() of the result"
    return LiveView(site.card, site.request_stop, hint=hint, waits=waits)
