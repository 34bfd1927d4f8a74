"""A run in a terminal: lines of text."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from .live import Shown, Watched

__all__ = ["TerminalView"]


class TerminalView:
    """A run in a terminal: one line a round, then the card's text.

    Args:
        run: what is followed.
        stream: where lines go; None is the standard output of that moment.
        said: stands before the first line.
    """

    def __init__(self, run: Watched, stream: TextIO | None = None, *, said: str = "") -> None:
        self._run = run
        self._said = f"{said}; " if said else ""
        self._stream = stream
        self._rounds = 0
        self._closed = False

    def show(self) -> None:
        """Say what begins."""
        run = self._run.snapshot()
        what = f"{run.plan.rounds} rounds, {len(run.plan.sites)} sites"
        self._write(f"{self._said}{run.name}: {what}; Ctrl-C stops")
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
