"""Files by content, models, their versions and aliases."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
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

__all__ = ["blobs", "model_aliases", "model_versions", "models"]

#: a row says that the file is complete and durable; the file always comes first
blobs = Table(
    "blobs",
    metadata,
    Column("organisation_id", ID, ForeignKey("organisations.id"), nullable=False),
    Column("sha256", SHA256, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    PrimaryKeyConstraint("organisation_id", "sha256"),
)

models = Table(
    "models",
    metadata,
    Column("id", ID, primary_key=True),
    Column("organisation_id", ID, ForeignKey("organisations.id"), nullable=False),
    Column("name", NAME, nullable=False),
    Column("description", Text, nullable=False),
    Column("framework", NAME, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    Column("type", String(16)),
    Column("first_label", NAME),
    UniqueConstraint("organisation_id", "name"),
)

#: immutable; ``sequence`` counts 1, 2, 3 in its model
model_versions = Table(
    "model_versions",
    metadata,
    Column("id", ID, primary_key=True),
    Column("organisation_id", ID, ForeignKey("organisations.id"), nullable=False),
    Column("model_id", ID, ForeignKey("models.id"), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("label", NAME, nullable=False),
    Column("format", String(32), nullable=False),
    Column("weights_sha256", SHA256, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("architecture", JSON, nullable=False),
    Column("signature", JSON, nullable=False),
    Column("statistics", JSON, nullable=False),
    Column("lineage", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    UniqueConstraint("model_id", "sequence"),
    UniqueConstraint("model_id", "label"),
    ForeignKeyConstraint(
        ["organisation_id", "weights_sha256"], ["blobs.organisation_id", "blobs.sha256"]
    ),
)

#: names that move from version to version of their own model
model_aliases = Table(
    "model_aliases",
    metadata,
    Column("organisation_id", ID, ForeignKey("organisations.id"), nullable=False),
    Column("model_id", ID, ForeignKey("models.id"), nullable=False),
    Column("alias", NAME, nullable=False),
    Column("version_sequence", Integer, nullable=False),
    Column("moved_at", INSTANT, nullable=False),
    Column("moved_by", ID, ForeignKey("principals.id"), nullable=False),
    PrimaryKeyConstraint("model_id", "alias"),
    ForeignKeyConstraint(
        ["model_id", "version_sequence"], ["model_versions.model_id", "model_versions.sequence"]
    ),
)

Index("ix_models_page", models.c.organisation_id, models.c.created_at, models.c.id)
