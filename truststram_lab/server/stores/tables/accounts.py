"""Organisations, principals, and what they prove themselves with."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from .columns import ID, INSTANT, NAME, SHA256, metadata

__all__ = ["credentials", "idempotency_keys", "organisations", "principals", "token_families"]

organisations = Table(
    "organisations",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", NAME, nullable=False, unique=True),
    Column("created_at", INSTANT, nullable=False),
)

#: who can act: people and sites; ``name`` is unique in the organisation
principals = Table(
    "principals",
    metadata,
    Column("id", ID, primary_key=True),
    Column("organisation_id", ID, ForeignKey("organisations.id"), nullable=False),
    Column("name", NAME, nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_at", INSTANT, nullable=False),
    UniqueConstraint("organisation_id", "name"),
)

#: bearer tokens, known by their SHA-256 only. ``kind`` is api_key, bootstrap, access or refresh;
#: ``scopes`` narrows what the role allows, None does not; ``family_id`` is of a device's tokens;
#: ``salt`` and ``nonce_sha256`` say how a spent refresh token's successors were derived
credentials = Table(
    "credentials",
    metadata,
    Column("id", ID, primary_key=True),
    Column("principal_id", ID, ForeignKey("principals.id"), nullable=False, index=True),
    Column("token_sha256", SHA256, nullable=False, unique=True),
    Column("created_at", INSTANT, nullable=False),
    Column("revoked_at", INSTANT),
    Column("kind", String(16), nullable=False, server_default="api_key"),
    Column("scopes", JSON),
    Column("expires_at_s", Float),
    Column("family_id", ID, index=True),
    Column("label", NAME),
    Column("last_used_at", INSTANT),
    Column("salt", LargeBinary),
    Column("nonce_sha256", SHA256),
)

#: the tokens of one device, from its bootstrap to its end
token_families = Table(
    "token_families",
    metadata,
    Column("id", ID, primary_key=True),
    Column("principal_id", ID, ForeignKey("principals.id"), nullable=False, index=True),
    Column("device_identifier", NAME, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("access_ttl_s", Integer, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    Column("expires_at_s", Float, nullable=False),
    Column("revoked_at", INSTANT),
    Column("revoked_reason", NAME),
)

#: ``status`` is None while the first request is in flight in the process ``instance``;
#: ``applied`` is set in the transaction that made the change; ``body`` is sealed (``claims``)
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("principal_id", ID, ForeignKey("principals.id"), nullable=False),
    Column("method", String(8), nullable=False),
    Column("path", Text, nullable=False),
    Column("key", String(255), nullable=False),
    Column("body_sha256", SHA256, nullable=False),
    Column("instance", String(64), nullable=False),
    Column("applied", Boolean, nullable=False),
    Column("status", Integer),
    Column("content_type", String(100)),
    Column("body", LargeBinary),
    Column("created_at_s", Float, nullable=False, index=True),
    PrimaryKeyConstraint("principal_id", "method", "path", "key"),
)
