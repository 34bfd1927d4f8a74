"""What happened, stream by stream."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    PrimaryKeyConstraint,
    String,
    Table,
)

from .columns import ID, INSTANT, NAME, metadata

__all__ = ["events", "streams"]

#: the last number given out in a stream, so that its numbers have no gap
streams = Table(
    "streams",
    metadata,
    Column("organisation_id", ID, ForeignKey("organisations.id"), nullable=False),
    Column("name", NAME, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    PrimaryKeyConstraint("organisation_id", "name"),
)

events = Table(
    "events",
    metadata,
    Column("organisation_id", ID, nullable=False),
    Column("stream", NAME, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("type", String(64), nullable=False),
    Column("data", JSON, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    PrimaryKeyConstraint("organisation_id", "stream", "sequence"),
    ForeignKeyConstraint(
        ["organisation_id", "stream"], ["streams.organisation_id", "streams.name"]
    ),
)
