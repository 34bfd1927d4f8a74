"""Endpoints and what they serve."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from .columns import ID, INSTANT, NAME, SHA256, metadata

__all__ = ["endpoints", "revisions"]

#: a stable address; the newest revision takes its traffic
endpoints = Table(
    "endpoints",
    metadata,
    Column("id", ID, primary_key=True),
    Column("organisation_id", ID, ForeignKey("organisations.id"), nullable=False),
    Column("environment", NAME, nullable=False),
    Column("name", NAME, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    Column("updated_at", INSTANT, nullable=False),
    UniqueConstraint("organisation_id", "environment", "name"),
)

#: ``reference`` is how the version was named, where that was by an alias; ``scaling`` is None
#: where it shares its workers; ``converted_sha256`` is the file that ``runtime`` computes with,
#: where that is not the version's own
revisions = Table(
    "revisions",
    metadata,
    Column("id", ID, primary_key=True),
    Column("endpoint_id", ID, ForeignKey("endpoints.id"), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("model_id", ID, ForeignKey("models.id"), nullable=False, index=True),
    Column("version_sequence", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", INSTANT, nullable=False),
    Column("reference", NAME),
    Column("scaling", JSON),
    Column("runtime", String(16)),
    Column("runtime_reason", Text),
    Column("converted_sha256", SHA256),
    UniqueConstraint("endpoint_id", "sequence"),
    ForeignKeyConstraint(
        ["model_id", "version_sequence"], ["model_versions.model_id", "model_versions.sequence"]
    ),
)
