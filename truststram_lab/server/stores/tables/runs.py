"""Runs, their rounds and updates."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from .columns import ID, INSTANT, NAME, SHA256, metadata

__all__ = ["rounds", "run_sites", "runs", "updates"]

#: ``resume_status`` is what a stopped run goes back to; ``waiting_until_s`` (seconds of the
#: epoch) is when the run stops waiting for sites; ``result_sha256`` is the last global model
runs = Table(
    "runs",
    metadata,
    Column("id", ID, primary_key=True),
    Column("organisation_id", ID, ForeignKey("organisations.id"), nullable=False),
    Column("federation_id", ID, ForeignKey("federations.id"), nullable=False),
    Column("name", NAME, nullable=False),
    Column("model", NAME, nullable=False),
    Column("number", Integer, nullable=False),
    Column("status", String(16), nullable=False, index=True),
    Column("resume_status", String(16)),
    Column("plan", JSON, nullable=False),
    Column("statistics", JSON),
    Column("report", JSON),
    Column("model_version", Integer),
    Column("deployed", Boolean, nullable=False),
    Column("reason", Text),
    Column("created_at", INSTANT, nullable=False),
    Column("updated_at", INSTANT, nullable=False),
    Column("result_sha256", SHA256),
    Column("statement", JSON),
    Column("waiting_until_s", Float),
    UniqueConstraint("organisation_id", "name"),
    UniqueConstraint("organisation_id", "model", "number"),
)

#: the sites of the plan, and with an open roster whoever came; ``position`` is the order of
#: every sum where the plan names the sites
run_sites = Table(
    "run_sites",
    metadata,
    Column("run_id", ID, ForeignKey("runs.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("principal_id", ID, ForeignKey("principals.id"), nullable=False, index=True),
    Column("name", NAME, nullable=False),
    PrimaryKeyConstraint("run_id", "position"),
    UniqueConstraint("run_id", "principal_id"),
)

#: ``number`` counts the run's rounds of all kinds from 0, ``training_number`` is the training
#: round that one is or belongs to (0 before the first). ``model_sha256`` is what the sites
#: start from, ``result_sha256`` the model that came out, ``next_model_sha256`` what the next
#: training round starts from. ``cohort`` has the ids of those who are asked, None is everybody
#: in ``run_sites``; ``declined`` says who will not, and why.
rounds = Table(
    "rounds",
    metadata,
    Column("id", ID, primary_key=True),
    Column("run_id", ID, ForeignKey("runs.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("model_sha256", SHA256),
    Column("result_sha256", SHA256),
    Column("created_at", INSTANT, nullable=False),
    Column("closed_at", INSTANT),
    Column("training_number", Integer),
    Column("cohort", JSON),
    Column("declined", JSON),
    Column("deadline_at_s", Float),
    Column("server_state_sha256", SHA256),
    Column("next_model_sha256", SHA256),
    Column("noised_sha256", SHA256),
    Column("outcome", JSON),
    UniqueConstraint("run_id", "number"),
)

updates = Table(
    "updates",
    metadata,
    Column("round_id", ID, ForeignKey("rounds.id"), nullable=False),
    Column("principal_id", ID, ForeignKey("principals.id"), nullable=False),
    Column("organisation_id", ID, ForeignKey("organisations.id"), nullable=False),
    Column("sha256", SHA256, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sample_count", BigInteger, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    Column("audit", JSON),
    PrimaryKeyConstraint("round_id", "principal_id"),
    ForeignKeyConstraint(["organisation_id", "sha256"], ["blobs.organisation_id", "blobs.sha256"]),
)

Index("ix_runs_page", runs.c.organisation_id, runs.c.created_at, runs.c.id)
