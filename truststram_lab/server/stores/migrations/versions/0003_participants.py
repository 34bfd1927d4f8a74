"""Cohorts, deadlines, evaluation, privacy budgets, and what sites say of their tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ID = sa.String(length=48)
_NAME = sa.String(length=255)
_INSTANT = sa.String(length=32)
_SHA256 = sa.String(length=64)


def upgrade() -> None:
    op.add_column("federations", sa.Column("description", sa.Text(), nullable=True))
    op.add_column("federations", sa.Column("closed_at", _INSTANT, nullable=True))
    op.add_column("runs", sa.Column("result_sha256", _SHA256, nullable=True))
    op.add_column("runs", sa.Column("statement", sa.JSON(), nullable=True))
    op.add_column("runs", sa.Column("waiting_until_s", sa.Float(), nullable=True))
    for name, kind in (
        ("training_number", sa.Integer()),
        ("cohort", sa.JSON()),
        ("declined", sa.JSON()),
        ("deadline_at_s", sa.Float()),
        ("server_state_sha256", _SHA256),
        ("next_model_sha256", _SHA256),
        ("noised_sha256", _SHA256),
        ("outcome", sa.JSON()),
    ):
        op.add_column("rounds", sa.Column(name, kind, nullable=True))
    op.execute("UPDATE rounds SET training_number = number, next_model_sha256 = result_sha256")
    # The result of a run that is done was its last round's.
    op.execute(
        "UPDATE runs SET result_sha256 = (SELECT result_sha256 FROM rounds WHERE "
        "rounds.run_id = runs.id ORDER BY number DESC LIMIT 1) WHERE model_version IS NOT NULL"
    )
    op.add_column("updates", sa.Column("audit", sa.JSON(), nullable=True))
    _site_tables()
    _budget_tables()


def _site_tables() -> None:
    op.create_table(
        "site_descriptions",
        sa.Column("principal_id", _ID, nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name="fk_site_descriptions_principal_id"
        ),
        sa.PrimaryKeyConstraint("principal_id", name="pk_site_descriptions"),
    )
    op.create_table(
        "personal_states",
        sa.Column("principal_id", _ID, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("organisation_id", _ID, nullable=False),
        sa.Column("sha256", _SHA256, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation_id", "sha256"],
            ["blobs.organisation_id", "blobs.sha256"],
            name="fk_personal_states_organisation_id_sha256",
        ),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name="fk_personal_states_principal_id"
        ),
        sa.PrimaryKeyConstraint("principal_id", "name", name="pk_personal_states"),
    )


def _budget_tables() -> None:
    op.create_table(
        "budgets",
        sa.Column("federation_id", _ID, nullable=False),
        sa.Column("unit", sa.String(length=16), nullable=False),
        sa.Column("epsilon", sa.Float(), nullable=False),
        sa.Column("delta", sa.Float(), nullable=False),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["federation_id"], ["federations.id"], name="fk_budgets_federation_id"
        ),
        sa.PrimaryKeyConstraint("federation_id", name="pk_budgets"),
    )
    op.create_table(
        "budget_entries",
        sa.Column("federation_id", _ID, nullable=False),
        sa.Column("round_id", _ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("unit", sa.String(length=16), nullable=False),
        sa.Column("adjacency", sa.String(length=16), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("uses", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["federation_id"], ["federations.id"], name="fk_budget_entries_federation_id"
        ),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_budget_entries_round_id"),
        sa.PrimaryKeyConstraint("federation_id", "round_id", name="pk_budget_entries"),
    )
