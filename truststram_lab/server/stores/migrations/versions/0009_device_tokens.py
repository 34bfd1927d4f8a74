"""Kinds, scopes and ends of credentials, and the families of devices' tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_ID = sa.String(length=48)
_NAME = sa.String(length=255)
_INSTANT = sa.String(length=32)


def upgrade() -> None:
    kind = sa.Column("kind", sa.String(length=16), nullable=False, server_default="api_key")
    op.add_column("credentials", kind)
    for name, of in (
        ("scopes", sa.JSON()),
        ("expires_at_s", sa.Float()),
        ("family_id", _ID),
        ("label", _NAME),
        ("last_used_at", _INSTANT),
        ("salt", sa.LargeBinary()),
        ("nonce_sha256", sa.String(length=64)),
    ):
        op.add_column("credentials", sa.Column(name, of, nullable=True))
    op.create_index("ix_credentials_family_id", "credentials", ["family_id"], unique=False)
    op.create_table(
        "token_families",
        sa.Column("id", _ID, nullable=False),
        sa.Column("principal_id", _ID, nullable=False),
        sa.Column("device_identifier", _NAME, nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("access_ttl_s", sa.Integer(), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("expires_at_s", sa.Float(), nullable=False),
        sa.Column("revoked_at", _INSTANT, nullable=True),
        sa.Column("revoked_reason", _NAME, nullable=True),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name="fk_token_families_principal_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_token_families"),
    )
    op.create_index(
        "ix_token_families_principal_id", "token_families", ["principal_id"], unique=False
    )
