"""A run's status and its stream: what every part of a run's life writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, update

from truststram_lab.server.stores import outbox
from truststram_lab.server.stores.tables import runs

__all__ = ["ACTIVE", "set_status", "tell"]

#: a run in one of these has work for its sites
ACTIVE = ("statistics", "training")


def tell(
    connection: Connection, run: Row[Any], kind: str, data: Mapping[str, object], now: str
) -> None:
    """Add an event to the run's own stream."""
    stream = outbox.run_stream(run.id)
    outbox.append(connection, run.organisation_id, stream, kind, data, now)


def set_status(
    connection: Connection, run: Row[Any], status: str, now: str, **values: object
) -> None:
    """Change a run's status (and ``values``), and say so in the organisation's stream."""
    connection.execute(
        update(runs).where(runs.c.id == run.id).values(status=status, updated_at=now, **values)
    )
    outbox.append(
        connection,
        run.organisation_id,
        outbox.ORGANISATION_STREAM,
        "run.status",
        {"run": run.name, "run_id": run.id, "status": status},
        now,
    )
