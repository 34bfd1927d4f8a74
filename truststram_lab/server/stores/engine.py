"""Transactions: SQLite in WAL mode for the sandbox, PostgreSQL by URL for a team.

``reading(engine)`` is a consistent snapshot, ``writing(engine)`` takes the write lock at
its beginning (so that it never fails half way for want of it) and, once the commit is
durable, wakes whoever waits for the streams it wrote to (see ``outbox``).
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool

from truststram_lab.exceptions import ConfigurationError

__all__ = [
    "Committed",
    "before_commit",
    "is_unavailable",
    "on_commit",
    "open_engine",
    "own_database",
    "reading",
    "writing",
]

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


#: Advisory locks of a PostgreSQL database: who writes, and which platform it belongs to.
_WRITER, _OWNER = 0x7473_0001, 0x7473_0002
_LOCK_WRITER = f"SELECT pg_advisory_xact_lock({_WRITER})"

#: how long a start waits for a former platform to let go of a database, in seconds
_HANDOVER_S = 5.0


def open_engine(url: str) -> Engine:
    """An engine for ``url``: ``sqlite:///home/platform.db``, ``postgresql://user@host/name``.

    SQLite: journal in WAL, ``synchronous=FULL`` (a commit survives a power cut), foreign
    keys enforced, and ``BEGIN IMMEDIATE`` for every transaction that is not read-only.
    PostgreSQL: the same order of things by an advisory lock, one writer at a time; services
    read, decide and write, and nobody changes meanwhile what they have read.

    Raises:
        ConfigurationError: it is no URL, of another kind of database, or a package is missing.
    """
    engine = create_engine(
        _checked(url), poolclass=QueuePool, pool_size=32, max_overflow=32, pool_pre_ping=True
    )
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "begin", _begin_postgresql)
    _shared[engine] = _Shared()
    return engine


def _checked(url: str) -> URL:
    try:
        found = make_url(url)
    except ArgumentError:
        # The text may hold a password, so it is not repeated.
        raise ConfigurationError(
            "TRUSTSTRAM_DATABASE_URL is no database's URL; write "
            "postgresql://user:password@host:5432/name, or leave it out for a file."
        ) from None
    kind = found.get_backend_name()
    if kind == "sqlite":
        return found
    if kind not in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"TRUSTSTRAM_DATABASE_URL names a {kind!r} database; the platform keeps its state in "
            "'postgresql' or 'sqlite'."
        )
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigurationError(
            "TRUSTSTRAM_DATABASE_URL names a PostgreSQL database, and its driver is missing; run: "
            "pip install 'truststram-lab[postgresql]'."
        )
    return found.set(drivername="postgresql+psycopg")


def own_database(engine: Engine) -> Connection | None:
    """Take a PostgreSQL database for this platform until the connection is closed.

    A file of SQLite lies in the platform's folder, which is owned already: then None.

    Raises:
        ConfigurationError: it cannot be reached, or belongs to another platform.
    """
    if engine.dialect.name == "sqlite":
        return None
    shown = engine.url.set(username=None, password=None, query={}).render_as_string()
    try:
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except OperationalError as error:
        why = str(error.orig).strip().splitlines()[-1]
        raise ConfigurationError(
            f"The database {shown} cannot be reached ({why}); start it, or correct "
            "TRUSTSTRAM_DATABASE_URL."
        ) from None
    deadline = time.monotonic() + _HANDOVER_S
    while not connection.execute(text(f"SELECT pg_try_advisory_lock({_OWNER})")).scalar_one():
        if time.monotonic() > deadline:
            connection.close()
            raise ConfigurationError(
                f"Another platform is running on the database {shown}; use that one, or give this "
                "one a database of its own."
            )
        time.sleep(0.05)
    return connection


def is_unavailable(error: Exception) -> bool:
    """Whether a server of databases did not answer, so that a request may succeed later."""
    return (
        isinstance(error, DBAPIError)
        and type(error.orig).__module__.startswith("psycopg")
        and (error.connection_invalidated or isinstance(error, OperationalError))
    )


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


def _begin_postgresql(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("truststram_reading") and options.get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql(_LOCK_WRITER)


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
    # A database's own waiting is slower (SQLite's sleeps up to 100 ms), and here one takes a
    # connection only when it is to be used.
    with shared.lock, engine.begin() as connection:
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
