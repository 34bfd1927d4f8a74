"""The first schema: accounts, events, registry, serving, federation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _accounts()
    _events()
    _registry()
    _serving()
    _federation()
    _runs()
    _rounds()


def _accounts() -> None:
    op.create_table(
        "organisations",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_organisations"),
        sa.UniqueConstraint("name", name="uq_organisations_name"),
    )
    op.create_table(
        "principals",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("organisation_id", sa.String(length=48), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_principals_organisation_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_principals"),
        sa.UniqueConstraint("organisation_id", "name", name="uq_principals_organisation_id_name"),
    )
    op.create_table(
        "credentials",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("principal_id", sa.String(length=48), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.Column("revoked_at", sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name="fk_credentials_principal_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_credentials"),
        sa.UniqueConstraint("token_sha256", name="uq_credentials_token_sha256"),
    )
    op.create_index("ix_credentials_principal_id", "credentials", ["principal_id"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("principal_id", sa.String(length=48), nullable=False),
        sa.Column("method", sa.String(length=8), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("instance", sa.String(length=64), nullable=False),
        sa.Column("applied", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("content_type", sa.String(length=100), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("created_at_s", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name="fk_idempotency_keys_principal_id"
        ),
        sa.PrimaryKeyConstraint(
            "principal_id", "method", "path", "key", name="pk_idempotency_keys"
        ),
    )
    op.create_index(
        "ix_idempotency_keys_created_at_s", "idempotency_keys", ["created_at_s"], unique=False
    )


def _events() -> None:
    op.create_table(
        "streams",
        sa.Column("organisation_id", sa.String(length=48), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_streams_organisation_id"
        ),
        sa.PrimaryKeyConstraint("organisation_id", "name", name="pk_streams"),
    )
    op.create_table(
        "events",
        sa.Column("organisation_id", sa.String(length=48), nullable=False),
        sa.Column("stream", sa.String(length=255), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation_id", "stream"],
            ["streams.organisation_id", "streams.name"],
            name="fk_events_organisation_id_stream",
        ),
        sa.PrimaryKeyConstraint("organisation_id", "stream", "sequence", name="pk_events"),
    )


def _registry() -> None:
    op.create_table(
        "blobs",
        sa.Column("organisation_id", sa.String(length=48), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_blobs_organisation_id"
        ),
        sa.PrimaryKeyConstraint("organisation_id", "sha256", name="pk_blobs"),
    )
    op.create_table(
        "models",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("organisation_id", sa.String(length=48), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("framework", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_models_organisation_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.UniqueConstraint("organisation_id", "name", name="uq_models_organisation_id_name"),
    )
    op.create_index(
        "ix_models_page", "models", ["organisation_id", "created_at", "id"], unique=False
    )
    op.create_table(
        "model_versions",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("organisation_id", sa.String(length=48), nullable=False),
        sa.Column("model_id", sa.String(length=48), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(length=255), nullable=False),
        sa.Column("format", sa.String(length=32), nullable=False),
        sa.Column("weights_sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("architecture", sa.JSON(), nullable=False),
        sa.Column("signature", sa.JSON(), nullable=False),
        sa.Column("statistics", sa.JSON(), nullable=False),
        sa.Column("lineage", sa.JSON(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_model_versions_model_id"),
        sa.ForeignKeyConstraint(
            ["organisation_id", "weights_sha256"],
            ["blobs.organisation_id", "blobs.sha256"],
            name="fk_model_versions_organisation_id_weights_sha256",
        ),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_model_versions_organisation_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_model_versions"),
        sa.UniqueConstraint("model_id", "label", name="uq_model_versions_model_id_label"),
        sa.UniqueConstraint("model_id", "sequence", name="uq_model_versions_model_id_sequence"),
    )


def _serving() -> None:
    op.create_table(
        "endpoints",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("organisation_id", sa.String(length=48), nullable=False),
        sa.Column("environment", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.Column("updated_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_endpoints_organisation_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_endpoints"),
        sa.UniqueConstraint(
            "organisation_id",
            "environment",
            "name",
            name="uq_endpoints_organisation_id_environment_name",
        ),
    )
    op.create_table(
        "revisions",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("endpoint_id", sa.String(length=48), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.String(length=48), nullable=False),
        sa.Column("version_sequence", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["endpoint_id"], ["endpoints.id"], name="fk_revisions_endpoint_id"),
        sa.ForeignKeyConstraint(
            ["model_id", "version_sequence"],
            ["model_versions.model_id", "model_versions.sequence"],
            name="fk_revisions_model_id_version_sequence",
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_revisions_model_id"),
        sa.PrimaryKeyConstraint("id", name="pk_revisions"),
        sa.UniqueConstraint("endpoint_id", "sequence", name="uq_revisions_endpoint_id_sequence"),
    )
    op.create_index("ix_revisions_model_id", "revisions", ["model_id"], unique=False)


def _federation() -> None:
    op.create_table(
        "federations",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("organisation_id", sa.String(length=48), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_federations_organisation_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_federations"),
        sa.UniqueConstraint("organisation_id", "name", name="uq_federations_organisation_id_name"),
    )
    op.create_table(
        "participants",
        sa.Column("federation_id", sa.String(length=48), nullable=False),
        sa.Column("principal_id", sa.String(length=48), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["federation_id"], ["federations.id"], name="fk_participants_federation_id"
        ),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name="fk_participants_principal_id"
        ),
        sa.PrimaryKeyConstraint("federation_id", "name", name="pk_participants"),
        sa.UniqueConstraint("principal_id", name="uq_participants_principal_id"),
    )
    op.create_table(
        "devices",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("organisation_id", sa.String(length=48), nullable=False),
        sa.Column("principal_id", sa.String(length=48), nullable=False),
        sa.Column("device_identifier", sa.String(length=255), nullable=False),
        sa.Column("platform", sa.String(length=255), nullable=False),
        sa.Column("os_version", sa.String(length=255), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_devices_organisation_id"
        ),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name="fk_devices_principal_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_devices"),
        sa.UniqueConstraint(
            "principal_id", "device_identifier", name="uq_devices_principal_id_device_identifier"
        ),
    )


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("organisation_id", sa.String(length=48), nullable=False),
        sa.Column("federation_id", sa.String(length=48), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("resume_status", sa.String(length=16), nullable=True),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("statistics", sa.JSON(), nullable=True),
        sa.Column("report", sa.JSON(), nullable=True),
        sa.Column("model_version", sa.Integer(), nullable=True),
        sa.Column("deployed", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.Column("updated_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["federation_id"], ["federations.id"], name="fk_runs_federation_id"
        ),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_runs_organisation_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint(
            "organisation_id", "model", "number", name="uq_runs_organisation_id_model_number"
        ),
        sa.UniqueConstraint("organisation_id", "name", name="uq_runs_organisation_id_name"),
    )
    op.create_index("ix_runs_page", "runs", ["organisation_id", "created_at", "id"], unique=False)
    op.create_index("ix_runs_status", "runs", ["status"], unique=False)
    op.create_table(
        "run_sites",
        sa.Column("run_id", sa.String(length=48), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("principal_id", sa.String(length=48), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name="fk_run_sites_principal_id"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_sites_run_id"),
        sa.PrimaryKeyConstraint("run_id", "position", name="pk_run_sites"),
        sa.UniqueConstraint("run_id", "principal_id", name="uq_run_sites_run_id_principal_id"),
    )
    op.create_index("ix_run_sites_principal_id", "run_sites", ["principal_id"], unique=False)


def _rounds() -> None:
    op.create_table(
        "rounds",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("run_id", sa.String(length=48), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("model_sha256", sa.String(length=64), nullable=True),
        sa.Column("result_sha256", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.Column("closed_at", sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_rounds_run_id"),
        sa.PrimaryKeyConstraint("id", name="pk_rounds"),
        sa.UniqueConstraint("run_id", "number", name="uq_rounds_run_id_number"),
    )
    op.create_table(
        "updates",
        sa.Column("round_id", sa.String(length=48), nullable=False),
        sa.Column("principal_id", sa.String(length=48), nullable=False),
        sa.Column("organisation_id", sa.String(length=48), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sample_count", sa.BigInteger(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation_id", "sha256"],
            ["blobs.organisation_id", "blobs.sha256"],
            name="fk_updates_organisation_id_sha256",
        ),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_updates_organisation_id"
        ),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name="fk_updates_principal_id"
        ),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_updates_round_id"),
        sa.PrimaryKeyConstraint("round_id", "principal_id", name="pk_updates"),
    )
