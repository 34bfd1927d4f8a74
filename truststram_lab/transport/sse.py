"""Event streams without I/O: the parser, and a subscription that survives cuts.

WHATWG HTML, section 9.2 "Server-sent events". https://html.spec.whatwg.org/multipage/#server-sent-events
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from truststram_lab.exceptions import PlatformError
from truststram_lab.schemas.base import Event

from .calls import Call, Response

__all__ = ["EventParser", "ServerEvent", "Subscription"]

#: Seconds without a byte after which the connection counts as dead; the platform sends a
#: comment every 10 s.
SILENCE_S = 25.0

_LARGEST_EVENT = 16 * 2**20
_FINAL = frozenset({"run.completed", "run.failed"})


@dataclass(frozen=True)
class ServerEvent:
    """One dispatched event, as the standard defines it."""

    type: str
    data: str
    last_id: str


class EventParser:
    """Turns bytes, cut anywhere, into events."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._pending = ""
        self._skip_newline = False
        self._started = False
        self._type = ""
        self._data: list[str] = []
        self._size = 0
        self._last_id = ""
        self.retry_ms: int | None = None
        #: the id of the first block, if that is no event: where the stream begins
        self.opened_id: str | None = None
        self._opened = False

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that ``chunk`` completes."""
        text = self._decoder.decode(chunk)
        if text and not self._started:
            self._started = True
            text = text.removeprefix("\ufeff")
        if text and self._skip_newline:
            # A carriage return ended the last chunk: its newline is not a second line.
            self._skip_newline = False
            text = text.removeprefix("\n")
        text = self._pending + text
        self._skip_newline = text.endswith("\r")
        *lines, self._pending = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if self._size + len(self._pending) > _LARGEST_EVENT:
            raise PlatformError("The platform's event stream sent an event without an end.")
        found = (self._line(line) for line in lines)
        return [event for event in found if event is not None]

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> ServerEvent | None:
        event = ServerEvent(self._type or "message", "\n".join(self._data), self._last_id)
        complete = bool(self._data)
        if not self._opened:
            self._opened = True
            self.opened_id = None if complete else self._last_id
        self._type, self._data, self._size = "", [], 0
        return event if complete else None


class Subscription:
    """What to ask, what arrived, and whether to ask again after the end of a connection.

    Args:
        stream: ``run:<id>`` or ``org``.
        after: sequence of the last event already seen; 0 starts at the first, ``latest``
            after the newest that there is when the stream is opened.
    """

    def __init__(self, stream: str, after: int | Literal["latest"] = 0) -> None:
        self.stream = stream
        #: the last event that was seen; None until the platform has said which is the newest
        self.last: int | None = None if after == "latest" else after
        self._parser = EventParser()
        self._arrived = 0
        self._empty_ends = 0
        self._final = False

    def call(self) -> Call[Response]:
        """The request for everything after the last event."""
        self._parser, self._arrived = EventParser(), 0
        headers = {"accept": "text/event-stream"}
        if self.last is not None:
            headers["last-event-id"] = str(self.last)
        return Call(
            "GET",
            "/api/v1/events",
            Response,
            query={"stream": self.stream, "after": "latest" if self.last is None else self.last},
            headers=headers,
            timeout_s=SILENCE_S,
            unwrap=_event_stream,
        )

    def feed(self, chunk: bytes) -> list[Event]:
        """New events in ``chunk``; those seen before a cut are left out."""
        fresh = []
        found = self._parser.feed(chunk)
        if self.last is None:
            self._begin()
        for raw in found:
            try:
                event = Event.model_validate_json(raw.data)
            except ValidationError:
                raise PlatformError(
                    f"The event after number {self.last} of stream {self.stream!r} is not "
                    "understood; upgrade this package or the platform."
                ) from None
            if self.last is None or event.sequence > self.last:
                self.last = event.sequence
                self._arrived += 1
                self._final = event.type in _FINAL
                fresh.append(event)
        return fresh

    def _begin(self) -> None:
        """Take the number with which a stream from ``latest`` on opens."""
        opened = self._parser.opened_id
        if opened is not None and opened.isascii() and opened.isdigit():
            self.last = int(opened)

    def ended(self, *, cut: bool) -> float | None:
        """Seconds until the next connection; None when there is nothing more to come.

        A clean end after a final event is the end. So is the second clean end in a row
        that brought nothing: a stream that was final before, and not a restart.
        """
        if cut:
            self._empty_ends = 0
        elif self._final:
            return None
        else:
            self._empty_ends = 0 if self._arrived else self._empty_ends + 1
            if self._empty_ends >= 2:
                return None
        return 0.2 if self._parser.retry_ms is None else min(self._parser.retry_ms / 1000, 10.0)


def _event_stream(response: Response) -> Response:
    found = response.headers.get("content-type", "")
    if not found.startswith("text/event-stream"):
        raise PlatformError(
            f"The platform's event stream came as {found or 'no content type'!r}; "
            "check that no proxy rewrites it."
        )
    return response
