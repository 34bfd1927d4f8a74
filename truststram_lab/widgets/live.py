"""Live views: a card that is replaced in place, and below it a way to stop.

The card itself is static HTML under a display id, so that progress is live in every front
end, and what is saved reads the same without kernel, widgets or network. Below it are two
outputs: how to stop, in words that our JupyterLab extension shows as a button; and a button
for front ends with widgets, whose packages a kernel loads once a run has gone on for some
seconds. Neither leaves a trace.

While it is open every message says in its metadata whose output it is (``truststram``), so
that a page which was loaded in mid-run can go on showing it:

- ``view``: the display id, which notebooks do not save otherwise;
- ``cell``: the id of the cell that shows it, where the front end tells it;
- ``count``: the number of that cell, if the cell runs for as long as the view is open;
- ``stop``: on the card, what the button below it needs.

The last message has none of it.
"""

from __future__ import annotations

import html
import logging
import sys
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from .kernel import (
    attended,
    current_cell,
    current_number,
    execution_count,
    in_kernel,
    publish,
)
from .terminal import TerminalView

if TYPE_CHECKING:
    from truststram_lab.schemas.federation import Run

    from .stop_button import StopButton

__all__ = [
    "LiveView",
    "Shown",
    "TerminalView",
    "View",
    "Watched",
    "follow",
    "in_kernel",
    "publish",
    "see",
    "seen_in_this_cell",
    "view_of",
]

_log = logging.getLogger(__name__)

#: How often a run in the background is looked at.
_LOOK_S = 0.1

#: A front end gets at most ten display messages of a view in any second, all its outputs
#: together: more is not seen, and floods its queue. Six, that the updates share with the three
#: that show it; and room for the button and the three that close it.
_MOST = 6
#: a little more than a second, as a message is dated after it was let through
_SECOND_S = 1.05
#: More than twice a second a card says something new. Each costs the training a millisecond or
#: two, as they share the interpreter: more of them would be felt before they were read.
_INTERVAL_S = 0.4

#: Seconds that a run goes on before packages of widgets are loaded for its button. Loading takes
#: about an eighth of a second from the training beside it: here, well under 1 %.
_BUTTON_AFTER_S = 20.0

#: How to stop what a cell waits for, without a button.
_INTERRUPT = "Stop: Kernel > Interrupt"
_NOTHING: Mapping[str, object] = {"text/plain": "", "text/html": ""}
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_STOP = "application/vnd.truststram.stop+json"


class Shown(Protocol):
    """Anything with a mimebundle; cards are."""

    def bundle(self) -> dict[str, object]: ...


class Watched(Protocol):
    """A run that can be looked at from any thread."""

    def card(self) -> Shown: ...

    def live_card(self) -> Shown: ...

    def revision(self) -> object: ...

    def snapshot(self) -> Run: ...


class View(Protocol):
    """What follows a run on a screen."""

    def show(self) -> None: ...

    def refresh(self, force: bool = False) -> None: ...

    def close(self) -> None: ...


class LiveView:
    """A card in the current cell's output that follows ``card()`` until it is closed.

    Args:
        card: called for the card of this moment, from whichever thread refreshes.
        stop: what the Stop button calls; it must return at once. None shows no button, nor
            does a notebook that runs unattended.
        hint: how to stop without a button; None where Kernel > Interrupt stops it.
        run: what is shown, if it is a run of the platform. JupyterLab with our extension then
            stops it by way of the Jupyter server, even while the kernel does not answer.
        waits: whether the cell goes on until the view is closed.
        live: called in the place of ``card`` until the view is closed.
        revision: gives something that is equal for as long as there is nothing new to show.
    """

    def __init__(
        self,
        card: Callable[[], Shown],
        stop: Callable[[], object] | None = None,
        *,
        live: Callable[[], Shown] | None = None,
        revision: Callable[[], object] | None = None,
        hint: str | None = None,
        run: Run | None = None,
        waits: bool = True,
    ) -> None:
        self._card = card
        self._live = live or card
        self._revision = revision
        self._shown_revision: object = None
        self._stop = stop
        words = hint or _INTERRUPT
        self._hint: dict[str, object] = {
            "text/plain": words,
            "text/html": f"<p>{html.escape(words, quote=False)}</p>",
        }
        self._otherwise = words if run is None else f"Stop: %ts_runs {run.name} stop"
        self._interrupts = hint is None and waits
        self._stoppable: dict[str, object] | None = None
        if run is not None and stop is not None:
            self._stoppable = self._stop_of(run)
        self._waits = waits
        self._card_id = f"truststram-{uuid.uuid4().hex}"
        self._footer_id = f"{self._card_id}-footer"
        self._widget_id = f"{self._card_id}-widget"
        #: what every message says of the cell
        self._place: dict[str, object] = {}
        # One publisher at a time: the loop that waits, a thread, or the one that loads
        # the button. Never held while somebody else's code waits for something.
        self._lock = threading.RLock()
        self._published: object = None
        #: when the card was asked for, and when the last messages were sent
        self._asked_at = float("-inf")
        self._sent_at = deque([float("-inf")] * _MOST, maxlen=_MOST)
        self._state = "new"
        self._button: StopButton | None = None
        self._closed = threading.Event()

    def show(self) -> None:
        """Put the card, and the way to stop, into the output of the current cell."""
        with self._lock:
            if self._state != "new":
                return
            self._state = "open"
            # Here, where the cell is executed: on another thread, or later, it is another's.
            self._place = _place(waits=self._waits)
            if not attended():
                self._stop = self._stoppable = None
            self._publish_card(update=False)
            if self._stop is None:
                return
            self._publish_footer(update=False)
            self._publish_widget({}, update=False)
        # On a thread, and only for a run that lasts: see _BUTTON_AFTER_S.
        threading.Thread(target=self._add_button, name="stop button", daemon=True).start()

    def stops(self, run: Run) -> None:
        """From now on the button below the card stops ``run``, another one than before."""
        with self._lock:
            if self._state != "open" or self._stop is None:
                return
            self._stoppable = self._stop_of(run)
            self._publish_footer(update=True)
            if self._button is None:
                self._publish_widget({}, update=True)

    def refresh(self, force: bool = False) -> None:
        """Show the card of this moment, if it reads differently; about twice a second.

        Args:
            force: do not mind the rate.
        """
        with self._lock:
            now = time.monotonic()
            too_soon = now - self._asked_at < _INTERVAL_S or now - self._sent_at[0] < _SECOND_S
            if self._state == "open" and (force or not too_soon) and self._is_news():
                self._publish_card(update=True)

    def close(self, next_steps: Shown | None = None) -> None:
        """Show the last card; nothing of the buttons stays in what is saved.

        Args:
            next_steps: takes the place of the way to stop.
        """
        with self._lock:
            if self._state != "open":
                return
            self._state = "closed"
            self._closed.set()
            # In any case: what it says of its view and cell is to go as well.
            self._send(self._card().bundle(), self._card_id, update=True)
            if self._stop is not None:
                last = _NOTHING if next_steps is None else next_steps.bundle()
                self._send(last, self._footer_id, update=True)
                self._send(_NOTHING, self._widget_id, update=True)
            elif next_steps is not None:
                self._send(next_steps.bundle(), self._footer_id)
            if self._button is not None:
                self._button.close()
                self._button = None

    def _is_news(self) -> bool:
        return self._revision is None or self._revision() != self._shown_revision

    def _publish_card(self, *, update: bool) -> None:
        if self._revision is not None:
            # Before the card is made: what changes meanwhile is news to the next one.
            self._shown_revision = self._revision()
        bundle = self._live().bundle()
        self._asked_at = time.monotonic()
        seen = bundle.get("text/html", bundle)
        if not update or seen != self._published:
            self._published = seen
            stop = {} if self._stoppable is None else {"stop": self._stoppable}
            self._send(
                bundle, self._card_id, update=update, metadata=self._of(self._card_id, **stop)
            )

    def _stop_of(self, run: Run) -> dict[str, object]:
        return {"run": run.id, "name": run.name, "interrupt": self._interrupts}

    def _publish_footer(self, *, update: bool) -> None:
        drawn = {} if self._stoppable is None else {_STOP: self._stoppable}
        footer = {**self._hint, **drawn}
        self._send(footer, self._footer_id, update=update, metadata=self._of(self._footer_id))

    def _publish_widget(self, view: Mapping[str, object], *, update: bool) -> None:
        # Where our extension draws a button already, it draws nothing for this one.
        drawn: dict[str, object] = {} if self._stoppable is None else {_STOP: {}}
        bundle = {**_NOTHING, **drawn, **view}
        self._send(bundle, self._widget_id, update=update, metadata=self._of(self._widget_id))

    def _send(
        self,
        bundle: Mapping[str, object],
        display_id: str,
        *,
        update: bool = False,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        publish(bundle, display_id, update=update, metadata=metadata)
        self._sent_at.append(time.monotonic())

    def _of(self, view: str, **more: object) -> dict[str, object]:
        return {"truststram": {"view": view, **self._place, **more}}

    def _add_button(self) -> None:
        if "anywidget" not in sys.modules and self._closed.wait(_BUTTON_AFTER_S):
            return
        try:
            from .stop_button import StopButton

            with self._lock:
                if self._state != "open":
                    return
                self._button = StopButton(self._request_stop, otherwise=self._otherwise)
                view = {"version_major": 2, "version_minor": 0, "model_id": self._button.model_id}
                self._publish_widget({_WIDGET_VIEW: view}, update=True)
        except Exception:  # noqa: BLE001 - on a thread: it would be printed into a later cell
            # The line that says how to stop without a button is there already.
            _log.debug("The stop button could not be shown.", exc_info=True)

    def _request_stop(self) -> None:
        if self._stop is not None:
            self._stop()


def view_of(
    run: Watched, *, hint: str | None = None, waits: bool = True
) -> LiveView | TerminalView:
    """The right view of a run for where we are: live in a notebook, lines in a terminal.

    A run seen by its own view in a cell is not shown again as that cell's result.

    Args:
        hint: how to stop it without a button; None where Kernel > Interrupt stops it.
        waits: whether the cell goes on until the view is closed.
    """
    see(run)
    if not in_kernel():
        return TerminalView(run)
    stop = getattr(run, "request_stop", None)
    return LiveView(
        run.card,
        stop,
        live=run.live_card,
        revision=run.revision,
        hint=hint,
        run=run.snapshot(),
        waits=waits,
    )


def follow(run: Watched, active: Callable[[], bool]) -> None:
    """Show a run that goes on in the background, and keep it up to date until it ends."""
    view = view_of(run, hint=f"Stop: %ts_runs {run.snapshot().name} stop", waits=False)
    view.show()

    def keep_up() -> None:
        while active():
            time.sleep(_LOOK_S)
            view.refresh()
        view.close()

    threading.Thread(target=keep_up, name="live view", daemon=True).start()


def see(run: Watched) -> None:
    """Note that the output of the cell that runs now has a view of ``run``."""
    _last_seen[run] = execution_count()


def seen_in_this_cell(run: Watched) -> bool:
    """Whether a view of ``run`` is in the output of the cell that runs now."""
    count = execution_count()
    return count is not None and _last_seen.get(run) == count


#: run -> number of the cell that shows it; forgotten with the run
_last_seen: weakref.WeakKeyDictionary[Any, int | None] = weakref.WeakKeyDictionary()


def _place(*, waits: bool) -> dict[str, object]:
    place = {"cell": current_cell(), "count": current_number() if waits else None}
    return {key: value for key, value in place.items() if value is not None}
