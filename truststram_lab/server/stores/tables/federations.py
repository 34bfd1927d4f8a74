"""Federations, who takes part, and what of their data is spent."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from .columns import ID, INSTANT, NAME, SHA256, metadata

__all__ = [
    "budget_entries",
    "budgets",
    "devices",
    "federations",
    "participants",
    "personal_states",
    "site_descriptions",
]

#: a closed one takes no new run and no new participant
federations = Table(
    "federations",
    metadata,
    Column("id", ID, primary_key=True),
    Column("organisation_id", ID, ForeignKey("organisations.id"), nullable=False),
    Column("name", NAME, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    Column("description", Text),
    Column("closed_at", INSTANT),
    UniqueConstraint("organisation_id", "name"),
)

#: ``name`` is the participant's own; its principal is called "federation/name"
participants = Table(
    "participants",
    metadata,
    Column("federation_id", ID, ForeignKey("federations.id"), nullable=False),
    Column("principal_id", ID, ForeignKey("principals.id"), nullable=False, unique=True),
    Column("name", NAME, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    PrimaryKeyConstraint("federation_id", "name"),
)

#: what a site said of its table before the first round
site_descriptions = Table(
    "site_descriptions",
    metadata,
    Column("principal_id", ID, ForeignKey("principals.id"), primary_key=True),
    Column("document", JSON, nullable=False),
    Column("updated_at", INSTANT, nullable=False),
)

#: a site's own personal models; nobody else reads them
personal_states = Table(
    "personal_states",
    metadata,
    Column("principal_id", ID, ForeignKey("principals.id"), nullable=False),
    Column("name", NAME, nullable=False),
    Column("organisation_id", ID, nullable=False),
    Column("sha256", SHA256, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("updated_at", INSTANT, nullable=False),
    PrimaryKeyConstraint("principal_id", "name"),
    ForeignKeyConstraint(["organisation_id", "sha256"], ["blobs.organisation_id", "blobs.sha256"]),
)

devices = Table(
    "devices",
    metadata,
    Column("id", ID, primary_key=True),
    Column("organisation_id", ID, ForeignKey("organisations.id"), nullable=False),
    Column("principal_id", ID, ForeignKey("principals.id"), nullable=False),
    Column("device_identifier", NAME, nullable=False),
    Column("platform", NAME, nullable=False),
    Column("os_version", NAME, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", INSTANT, nullable=False),
    UniqueConstraint("principal_id", "device_identifier"),
)

#: the most that a federation's data may ever spend, and in which unit it is counted
budgets = Table(
    "budgets",
    metadata,
    Column("federation_id", ID, ForeignKey("federations.id"), primary_key=True),
    Column("unit", String(16), nullable=False),
    Column("epsilon", Float, nullable=False),
    Column("delta", Float, nullable=False),
    Column("updated_at", INSTANT, nullable=False),
)

#: what the rounds took of it, in the order of ``position``; kept also without a budget
budget_entries = Table(
    "budget_entries",
    metadata,
    Column("federation_id", ID, ForeignKey("federations.id"), nullable=False),
    Column("round_id", ID, ForeignKey("rounds.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("unit", String(16), nullable=False),
    Column("adjacency", String(16), nullable=False),
    Column("purpose", Text, nullable=False),
    Column("uses", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", INSTANT, nullable=False),
    PrimaryKeyConstraint("federation_id", "round_id"),
)
