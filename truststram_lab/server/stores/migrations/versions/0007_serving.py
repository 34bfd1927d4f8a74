"""How many workers a deployment has, and what runs it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0003"


def upgrade() -> None:
    for name, kind in (
        ("scaling", sa.JSON()),
        ("runtime", sa.String(length=16)),
        ("runtime_reason", sa.Text()),
        ("converted_sha256", sa.String(length=64)),
    ):
        op.add_column("revisions", sa.Column(name, kind, nullable=True))
