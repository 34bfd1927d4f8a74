"""Aliases of models, and by which one a deployment named its version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "model_aliases",
        sa.Column("organisation_id", sa.String(length=48), nullable=False),
        sa.Column("model_id", sa.String(length=48), nullable=False),
        sa.Column("alias", sa.String(length=255), nullable=False),
        sa.Column("version_sequence", sa.Integer(), nullable=False),
        sa.Column("moved_at", sa.String(length=32), nullable=False),
        sa.Column("moved_by", sa.String(length=48), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id", "version_sequence"],
            ["model_versions.model_id", "model_versions.sequence"],
            name="fk_model_aliases_model_id_version_sequence",
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_model_aliases_model_id"),
        sa.ForeignKeyConstraint(["moved_by"], ["principals.id"], name="fk_model_aliases_moved_by"),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_model_aliases_organisation_id"
        ),
        sa.PrimaryKeyConstraint("model_id", "alias", name="pk_model_aliases"),
    )
    op.add_column("revisions", sa.Column("reference", sa.String(length=255), nullable=True))
