"""Live views: a card that is replaced in place, and below it a way to stop.

The card itself is static HTML under a display id, so that progress is live in every front
end, and what is saved reads the same without kernel, widgets or network. The Stop button
needs a widget front end and comes once its packages are loaded; it leaves no trace.
"""

from __future__ import annotations

import html
import logging
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from truststram_lab.schemas.federation import Run

    from .stop_button import StopButton

__all__ = ["LiveView", "Shown", "TerminalView", "View", "Watched", "follow", "view_of"]

_log = logging.getLogger(__name__)

#: At most ten updates a second: more is not seen, and floods the front end's queue.
_INTERVAL_S = 0.1

#: How to stop what a cell waits for, without a button.
_INTERRUPT = "Stop: Kernel > Interrupt"
_NOTHING: Mapping[str, object] = {"text/plain": "", "text/html": ""}
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class Shown(Protocol):
    """Anything with a mimebundle; cards are."""

    def bundle(self) -> dict[str, object]: ...


class Watched(Protocol):
    """A run that can be looked at from any thread."""

    def card(self) -> Shown: ...

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
        hint: how to stop without the button, for front ends that have none.
    """

    def __init__(
        self,
        card: Callable[[], Shown],
        stop: Callable[[], object] | None = None,
        *,
        hint: str = _INTERRUPT,
    ) -> None:
        self._card = card
        self._stop = stop
        self._hint: dict[str, object] = {
            "text/plain": hint,
            "text/html": f"<p>{html.escape(hint, quote=False)}</p>",
        }
        self._card_id = f"truststram-{uuid.uuid4().hex}"
        self._footer_id = f"{self._card_id}-footer"
        # One publisher at a time: the loop that waits, a thread, or the one that loads
        # the button. Never held while somebody else's code waits for something.
        self._lock = threading.RLock()
        self._published: object = None
        self._published_at = float("-inf")
        self._state = "new"
        self._button: StopButton | None = None

    def show(self) -> None:
        """Put the card, and the way to stop, into the output of the current cell."""
        with self._lock:
            if self._state != "new":
                return
            self._state = "open"
            self._publish_card(update=False)
            if not _attended():
                self._stop = None
            if self._stop is None:
                return
            publish(self._hint, self._footer_id)
        # The packages of widgets take most of a second to load; training does not wait.
        threading.Thread(target=self._add_button, name="stop button", daemon=True).start()

    def refresh(self, force: bool = False) -> None:
        """Show the card of this moment, if it reads differently; at most ten times a second.

        Args:
            force: do not mind the rate.
        """
        with self._lock:
            too_soon = time.monotonic() - self._published_at < _INTERVAL_S
            if self._state == "open" and (force or not too_soon):
                self._publish_card(update=True)

    def close(self, next_steps: Shown | None = None) -> None:
        """Show the last card; nothing of the button stays in what is saved.

        Args:
            next_steps: takes the place of the button.
        """
        with self._lock:
            if self._state != "open":
                return
            self._publish_card(update=True)
            self._state = "closed"
            if self._stop is not None:
                publish(
                    _NOTHING if next_steps is None else next_steps.bundle(),
                    self._footer_id,
                    update=True,
                )
            elif next_steps is not None:
                publish(next_steps.bundle(), self._footer_id)
            if self._button is not None:
                self._button.close()
                self._button = None

    def _publish_card(self, *, update: bool) -> None:
        bundle = self._card().bundle()
        self._published_at = time.monotonic()
        seen = bundle.get("text/html", bundle)
        if not update or seen != self._published:
            self._published = seen
            publish(bundle, self._card_id, update=update)

    def _add_button(self) -> None:
        try:
            from .stop_button import StopButton

            with self._lock:
                if self._state != "open":
                    return
                self._button = StopButton(self._request_stop)
                view = {"version_major": 2, "version_minor": 0, "model_id": self._button.model_id}
                publish({**self._hint, _WIDGET_VIEW: view}, self._footer_id, update=True)
        except Exception:  # noqa: BLE001 - on a thread: it would be printed into a later cell
            # The line that says how to stop without a button is there already.
            _log.debug("The stop button could not be shown.", exc_info=True)

    def _request_stop(self) -> None:
        if self._stop is not None:
            self._stop()


class TerminalView:
    """A run in a terminal: one line a round, then the card's text.

    Args:
        run: what is followed.
        stream: where lines go; None is the standard output of that moment.
    """

    def __init__(self, run: Watched, stream: TextIO | None = None) -> None:
        self._run = run
        self._stream = stream
        self._rounds = 0
        self._closed = False

    def show(self) -> None:
        """Say what begins."""
        run = self._run.snapshot()
        self._write(
            f"{run.name}: {run.plan.rounds} rounds, {len(run.plan.sites)} sites; Ctrl-C stops"
        )
        self._rounds = 0 if run.report is None else len(run.report.history)

    def refresh(self, force: bool = False) -> None:  # noqa: ARG002 - the views' one signature
        """Write a line for every round that is new."""
        run = self._run.snapshot()
        if run.report is None:
            return
        for entry in run.report.history[self._rounds :]:
            self._write(
                f"round {entry.number}/{run.plan.rounds}  accuracy {entry.accuracy:.3f}  "
                f"loss {entry.loss:.3f}  {run.report.elapsed_s:.0f} s"
            )
        self._rounds = len(run.report.history)

    def close(self, next_steps: Shown | None = None) -> None:
        """Write the result's text."""
        if self._closed:
            return
        self._closed = True
        self.refresh()
        for shown in (self._run.card(), next_steps):
            if shown is not None:
                self._write(str(shown.bundle()["text/plain"]))

    def _write(self, line: str) -> None:
        stream = self._stream or sys.stdout
        stream.write(line + "\n")
        stream.flush()


def view_of(run: Watched, *, hint: str = _INTERRUPT) -> LiveView | TerminalView:
    """The right view of a run for where we are: live in a notebook, lines in a terminal.

    A run seen by its own view in a cell is not shown again as that cell's result.

    Args:
        hint: how to stop it without the button.
    """
    _last_seen[run] = _execution_count()
    if not in_kernel():
        return TerminalView(run)
    stop = getattr(run, "request_stop", None)
    return LiveView(run.card, stop, hint=hint)


def follow(run: Watched, active: Callable[[], bool]) -> None:
    """Show a run that goes on in the background, and keep it up to date until it ends."""
    view = view_of(run, hint=f"Stop: %ts_runs {run.snapshot().name} stop")
    view.show()

    def keep_up() -> None:
        while active():
            time.sleep(_INTERVAL_S)
            view.refresh()
        view.close()

    threading.Thread(target=keep_up, name="live view", daemon=True).start()


def seen_in_this_cell(run: Watched) -> bool:
    """Whether a view of ``run`` is in the output of the cell that runs now."""
    count = _execution_count()
    return count is not None and _last_seen.get(run) == count


def in_kernel() -> bool:
    """Whether a Jupyter kernel shows what we publish."""
    return getattr(_shell(), "kernel", None) is not None


#: run -> number of the cell that shows it; forgotten with the run
_last_seen: weakref.WeakKeyDictionary[Any, int | None] = weakref.WeakKeyDictionary()


def _shell() -> Any:
    # Without IPython loaded there is no shell, and nothing to load it for.
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def _attended() -> bool:
    """Whether somebody sits in front of the cell that runs now.

    Who runs notebooks unattended allows no prompts; a button would only leave the state of
    a widget in the file.
    """
    request = _shell().kernel.get_parent()
    return bool(request.get("content", {}).get("allow_stdin", True))


def _execution_count() -> int | None:
    return getattr(_shell(), "execution_count", None)


def publish(
    bundle: Mapping[str, object], display_id: str | None = None, *, update: bool = False
) -> None:
    """Put a mimebundle into the current cell's output, or in the place of ``display_id``."""
    transient = {} if display_id is None else {"display_id": display_id}
    _shell().display_pub.publish(data=dict(bundle), transient=transient, update=update)
