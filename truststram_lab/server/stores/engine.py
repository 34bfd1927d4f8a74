"""Transactions: SQLite in WAL mode for the sandbox, PostgreSQL by URL for a team.

``reading(engine)`` is a consistent snapshot, ``writing(engine)`` takes the write lock at
its beginning (so that it never fails half way for want of it) and, once the commit is
durable, wakes whoever waits for the streams it wrote to (see ``outbox``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

__all__ = ["Committed", "before_commit", "on_commit", "open_engine", "reading", "writing"]

#: called after a commit with the streams that got events: ``{(organisation_id, stream)}``
Committed = Callable[[set[tuple[str, str]]], None]

#: what the current request adds to each of its transactions (see ``claims``)
before_commit: ContextVar[Callable[[Connection], None] | None] = ContextVar(
    "before_commit", default=None
)

BUSY_TIMEOUT_MS = 20_000


@dataclass
class _Shared:
    lock: threading.RLock = field(default_factory=threading.RLock)
    listeners: list[Committed] = field(default_factory=list)


_shared: WeakKeyDictionary[Engine, _Shared] = WeakKeyDictionary()


def open_engine(url: str) -> Engine:
    """An engine for ``url``, for example ``sqlite:///home/platform.db``.

    SQLite: journal in WAL, ``synchronous=FULL`` (a commit survives a power cut), foreign
    keys enforced, and ``BEGIN IMMEDIATE`` for every transaction that is not read-only.
    """
    engine = create_engine(url, poolclass=QueuePool, pool_size=32, max_overflow=32)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    _shared[engine] = _Shared()
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver starts no transaction of its own
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    kind = connection.get_execution_options().get("truststram_reading")
    if kind != "once":
        connection.exec_driver_sql("BEGIN" if kind else "BEGIN IMMEDIATE")


@contextmanager
def reading(engine: Engine, *, once: bool = False) -> Iterator[Connection]:
    """A connection that sees one state of the database and changes nothing.

    Args:
        once: there is one statement, or what a second one reads never changes: on SQLite, a
            statement sees one state without a transaction.
    """
    options: dict[str, Any] = {"truststram_reading": "once" if once else "all"}
    if engine.dialect.name == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect() as connection:
        yield connection.execution_options(**options)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction: all of it is durable on leaving, none of it after an exception."""
    shared = _shared[engine]
    # SQLite's own waiting sleeps in steps of up to 100 ms; threads of one process queue here.
    lock = shared.lock if engine.dialect.name == "sqlite" else threading.RLock()
    with lock, engine.begin() as connection:
        touched: set[tuple[str, str]] = set()
        connection.info["streams"] = touched
        yield connection
        also = before_commit.get()
        if also is not None:
            also(connection)
    if touched:
        for committed in shared.listeners:
            committed(touched)


def on_commit(engine: Engine, committed: Committed) -> None:
    """Call ``committed`` after each transaction of ``writing`` that appended events."""
    _shared[engine].listeners.append(committed)
