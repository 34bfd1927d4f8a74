"""What a model predicts, and the label of its first uploaded version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("models", sa.Column("type", sa.String(length=16), nullable=True))
    op.add_column("models", sa.Column("first_label", sa.String(length=255), nullable=True))
