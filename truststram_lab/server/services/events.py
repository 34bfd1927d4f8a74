"""Streams of events: reading them, and waiting for the next without asking again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, or_, select

from truststram_lab.exceptions import InvalidInputError, RunNotFoundError
from truststram_lab.schemas.base import Event
from truststram_lab.server.stores import outbox
from truststram_lab.server.stores.engine import reading
from truststram_lab.server.stores.tables import events, runs

__all__ = ["EventsService", "Wakeups"]

#: a run in one of these gets no more work; its stream ends when it is drained
_FINAL = ("completed", "failed")


class Wakeups:
    """Carries "there is news" from the threads that commit to the coroutines that wait."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop in which the waiting is done."""
        self._loop = loop

    def committed(self, touched: set[tuple[str, str]]) -> None:
        """Wake the listeners of these keys; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, touched)

    def _wake(self, touched: set[tuple[str, str]]) -> None:
        for key in touched:
            for news in self._waiting.get(key, ()):
                news.set()

    def wake_all(self) -> None:
        """Wake everybody, in the loop: the platform closes."""
        self._wake(set(self._waiting))

    @contextmanager
    def listen(self, key: tuple[str, str]) -> Iterator[asyncio.Event]:
        """An event that is set at each commit for ``key``.

        Listen first and read then, and nothing that happens in between is missed.
        """
        news = asyncio.Event()
        self._waiting.setdefault(key, set()).add(news)
        try:
            yield news
        finally:
            here = self._waiting[key]
            here.discard(news)
            if not here:
                del self._waiting[key]


class EventsService:
    """The events of one organisation's streams."""

    def __init__(self, engine: Engine, wakeups: Wakeups) -> None:
        self._engine = engine
        self.wakeups = wakeups

    def stream_name(self, organisation_id: str, stream: str) -> str:
        """The stream that ``org`` or ``run:<id or name>`` means.

        Raises:
            InvalidInputError: neither of the two.
            RunNotFoundError: the organisation has no such run.
        """
        if stream == outbox.ORGANISATION_STREAM:
            return stream
        kind, _, ref = stream.partition(":")
        if kind != "run" or not ref:
            raise InvalidInputError(
                f"{stream[:80]!r} is not a stream; it is org or run:<id>.",
                field="stream",
                choices=["org", "run:<id>"],
            )
        with reading(self._engine) as connection:
            run_id = connection.execute(
                select(runs.c.id).where(
                    runs.c.organisation_id == organisation_id,
                    or_(runs.c.id == ref, runs.c.name == ref),
                )
            ).scalar_one_or_none()
        if run_id is None:
            raise RunNotFoundError(f"There is no run {ref!r}.", run=ref)
        return outbox.run_stream(run_id)

    def latest(self, organisation_id: str, stream: str) -> int:
        """The number of the stream's newest event; 0 if it has none."""
        with reading(self._engine) as connection:
            return outbox.last_sequence(connection, organisation_id, stream)

    def read(
        self, organisation_id: str, stream: str, after: int, limit: int = 500
    ) -> tuple[list[Event], bool]:
        """The events after number ``after``, oldest first, and whether no more will come."""
        query = (
            select(events)
            .where(
                events.c.organisation_id == organisation_id,
                events.c.stream == stream,
                events.c.sequence > after,
            )
            .order_by(events.c.sequence)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
            found = [
                Event(
                    stream=row.stream,
                    sequence=row.sequence,
                    type=row.type,
                    data=row.data,
                    created_at=row.created_at,
                )
                for row in rows
            ]
            if len(rows) == limit or stream == outbox.ORGANISATION_STREAM:
                return found, False
            status = connection.execute(
                select(runs.c.status).where(runs.c.id == stream.removeprefix("run:"))
            ).scalar_one()
        return found, status in _FINAL
