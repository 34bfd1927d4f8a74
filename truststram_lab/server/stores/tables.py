"""The tables of the control state.

Every row belongs to an organisation. Instants are texts (ISO 8601, UTC, see
``ids.timestamp``); documents are JSON in the shape of their schema. The migrations under
``migrations`` build exactly this, and a test compares the two.
"""

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
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ID = String(48)
_NAME = String(255)
_INSTANT = String(32)
_SHA256 = String(64)

organisations = Table(
    "organisations",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", _NAME, nullable=False, unique=True),
    Column("created_at", _INSTANT, nullable=False),
)

#: who can act: people and sites; ``name`` is unique in the organisation
principals = Table(
    "principals",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False),
    Column("name", _NAME, nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_at", _INSTANT, nullable=False),
    UniqueConstraint("organisation_id", "name"),
)

#: bearer tokens, known by their SHA-256 only
credentials = Table(
    "credentials",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("principal_id", _ID, ForeignKey("principals.id"), nullable=False, index=True),
    Column("token_sha256", _SHA256, nullable=False, unique=True),
    Column("created_at", _INSTANT, nullable=False),
    Column("revoked_at", _INSTANT),
)

#: ``status`` is None while the first request is in flight in the process ``instance``;
#: ``applied`` is set in the transaction that made the change; ``body`` is sealed (``claims``)
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("principal_id", _ID, ForeignKey("principals.id"), nullable=False),
    Column("method", String(8), nullable=False),
    Column("path", Text, nullable=False),
    Column("key", String(255), nullable=False),
    Column("body_sha256", _SHA256, nullable=False),
    Column("instance", String(64), nullable=False),
    Column("applied", Boolean, nullable=False),
    Column("status", Integer),
    Column("content_type", String(100)),
    Column("body", LargeBinary),
    Column("created_at_s", Float, nullable=False, index=True),
    PrimaryKeyConstraint("principal_id", "method", "path", "key"),
)

#: a row says that the file is complete and durable; the file always comes first
blobs = Table(
    "blobs",
    metadata,
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False),
    Column("sha256", _SHA256, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", _INSTANT, nullable=False),
    PrimaryKeyConstraint("organisation_id", "sha256"),
)

models = Table(
    "models",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False),
    Column("name", _NAME, nullable=False),
    Column("description", Text, nullable=False),
    Column("framework", _NAME, nullable=False),
    Column("created_at", _INSTANT, nullable=False),
    Column("type", String(16)),
    Column("first_label", _NAME),
    UniqueConstraint("organisation_id", "name"),
)

#: immutable; ``sequence`` counts 1, 2, 3 in its model
model_versions = Table(
    "model_versions",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False),
    Column("model_id", _ID, ForeignKey("models.id"), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("label", _NAME, nullable=False),
    Column("format", String(32), nullable=False),
    Column("weights_sha256", _SHA256, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("architecture", JSON, nullable=False),
    Column("signature", JSON, nullable=False),
    Column("statistics", JSON, nullable=False),
    Column("lineage", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("created_at", _INSTANT, nullable=False),
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
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False),
    Column("model_id", _ID, ForeignKey("models.id"), nullable=False),
    Column("alias", _NAME, nullable=False),
    Column("version_sequence", Integer, nullable=False),
    Column("moved_at", _INSTANT, nullable=False),
    Column("moved_by", _ID, ForeignKey("principals.id"), nullable=False),
    PrimaryKeyConstraint("model_id", "alias"),
    ForeignKeyConstraint(
        ["model_id", "version_sequence"], ["model_versions.model_id", "model_versions.sequence"]
    ),
)

#: a stable address; the newest revision takes its traffic
endpoints = Table(
    "endpoints",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False),
    Column("environment", _NAME, nullable=False),
    Column("name", _NAME, nullable=False),
    Column("created_at", _INSTANT, nullable=False),
    Column("updated_at", _INSTANT, nullable=False),
    UniqueConstraint("organisation_id", "environment", "name"),
)

#: ``reference`` is how the version was named, where that was by an alias; ``scaling`` is None
#: where it shares its workers; ``converted_sha256`` is the file that ``runtime`` computes with,
#: where that is not the version's own
revisions = Table(
    "revisions",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("endpoint_id", _ID, ForeignKey("endpoints.id"), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("model_id", _ID, ForeignKey("models.id"), nullable=False, index=True),
    Column("version_sequence", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", _INSTANT, nullable=False),
    Column("reference", _NAME),
    Column("scaling", JSON),
    Column("runtime", String(16)),
    Column("runtime_reason", Text),
    Column("converted_sha256", _SHA256),
    UniqueConstraint("endpoint_id", "sequence"),
    ForeignKeyConstraint(
        ["model_id", "version_sequence"], ["model_versions.model_id", "model_versions.sequence"]
    ),
)

#: a closed one takes no new run and no new participant
federations = Table(
    "federations",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False),
    Column("name", _NAME, nullable=False),
    Column("created_at", _INSTANT, nullable=False),
    Column("description", Text),
    Column("closed_at", _INSTANT),
    UniqueConstraint("organisation_id", "name"),
)

#: ``name`` is the participant's own; its principal is called "federation/name"
participants = Table(
    "participants",
    metadata,
    Column("federation_id", _ID, ForeignKey("federations.id"), nullable=False),
    Column("principal_id", _ID, ForeignKey("principals.id"), nullable=False, unique=True),
    Column("name", _NAME, nullable=False),
    Column("created_at", _INSTANT, nullable=False),
    PrimaryKeyConstraint("federation_id", "name"),
)

#: what a site said of its table before the first round
site_descriptions = Table(
    "site_descriptions",
    metadata,
    Column("principal_id", _ID, ForeignKey("principals.id"), primary_key=True),
    Column("document", JSON, nullable=False),
    Column("updated_at", _INSTANT, nullable=False),
)

#: a site's own personal models; nobody else reads them
personal_states = Table(
    "personal_states",
    metadata,
    Column("principal_id", _ID, ForeignKey("principals.id"), nullable=False),
    Column("name", _NAME, nullable=False),
    Column("organisation_id", _ID, nullable=False),
    Column("sha256", _SHA256, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("updated_at", _INSTANT, nullable=False),
    PrimaryKeyConstraint("principal_id", "name"),
    ForeignKeyConstraint(["organisation_id", "sha256"], ["blobs.organisation_id", "blobs.sha256"]),
)

devices = Table(
    "devices",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False),
    Column("principal_id", _ID, ForeignKey("principals.id"), nullable=False),
    Column("device_identifier", _NAME, nullable=False),
    Column("platform", _NAME, nullable=False),
    Column("os_version", _NAME, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", _INSTANT, nullable=False),
    UniqueConstraint("principal_id", "device_identifier"),
)

#: ``resume_status`` is what a stopped run goes back to; ``waiting_until_s`` (seconds of the
#: epoch) is when the run stops waiting for sites; ``result_sha256`` is the last global model
runs = Table(
    "runs",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False),
    Column("federation_id", _ID, ForeignKey("federations.id"), nullable=False),
    Column("name", _NAME, nullable=False),
    Column("model", _NAME, nullable=False),
    Column("number", Integer, nullable=False),
    Column("status", String(16), nullable=False, index=True),
    Column("resume_status", String(16)),
    Column("plan", JSON, nullable=False),
    Column("statistics", JSON),
    Column("report", JSON),
    Column("model_version", Integer),
    Column("deployed", Boolean, nullable=False),
    Column("reason", Text),
    Column("created_at", _INSTANT, nullable=False),
    Column("updated_at", _INSTANT, nullable=False),
    Column("result_sha256", _SHA256),
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
    Column("run_id", _ID, ForeignKey("runs.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("principal_id", _ID, ForeignKey("principals.id"), nullable=False, index=True),
    Column("name", _NAME, nullable=False),
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
    Column("id", _ID, primary_key=True),
    Column("run_id", _ID, ForeignKey("runs.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("model_sha256", _SHA256),
    Column("result_sha256", _SHA256),
    Column("created_at", _INSTANT, nullable=False),
    Column("closed_at", _INSTANT),
    Column("training_number", Integer),
    Column("cohort", JSON),
    Column("declined", JSON),
    Column("deadline_at_s", Float),
    Column("server_state_sha256", _SHA256),
    Column("next_model_sha256", _SHA256),
    Column("noised_sha256", _SHA256),
    Column("outcome", JSON),
    UniqueConstraint("run_id", "number"),
)

updates = Table(
    "updates",
    metadata,
    Column("round_id", _ID, ForeignKey("rounds.id"), nullable=False),
    Column("principal_id", _ID, ForeignKey("principals.id"), nullable=False),
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False),
    Column("sha256", _SHA256, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sample_count", BigInteger, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("created_at", _INSTANT, nullable=False),
    Column("audit", JSON),
    PrimaryKeyConstraint("round_id", "principal_id"),
    ForeignKeyConstraint(["organisation_id", "sha256"], ["blobs.organisation_id", "blobs.sha256"]),
)

#: the most that a federation's data may ever spend, and in which unit it is counted
budgets = Table(
    "budgets",
    metadata,
    Column("federation_id", _ID, ForeignKey("federations.id"), primary_key=True),
    Column("unit", String(16), nullable=False),
    Column("epsilon", Float, nullable=False),
    Column("delta", Float, nullable=False),
    Column("updated_at", _INSTANT, nullable=False),
)

#: what the rounds took of it, in the order of ``position``; kept also without a budget
budget_entries = Table(
    "budget_entries",
    metadata,
    Column("federation_id", _ID, ForeignKey("federations.id"), nullable=False),
    Column("round_id", _ID, ForeignKey("rounds.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("unit", String(16), nullable=False),
    Column("adjacency", String(16), nullable=False),
    Column("purpose", Text, nullable=False),
    Column("uses", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", _INSTANT, nullable=False),
    PrimaryKeyConstraint("federation_id", "round_id"),
)

#: the last number given out in a stream, so that its numbers have no gap
streams = Table(
    "streams",
    metadata,
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False),
    Column("name", _NAME, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    PrimaryKeyConstraint("organisation_id", "name"),
)

events = Table(
    "events",
    metadata,
    Column("organisation_id", _ID, nullable=False),
    Column("stream", _NAME, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("type", String(64), nullable=False),
    Column("data", JSON, nullable=False),
    Column("created_at", _INSTANT, nullable=False),
    PrimaryKeyConstraint("organisation_id", "stream", "sequence"),
    ForeignKeyConstraint(
        ["organisation_id", "stream"], ["streams.organisation_id", "streams.name"]
    ),
)

Index("ix_runs_page", runs.c.organisation_id, runs.c.created_at, runs.c.id)
Index("ix_models_page", models.c.organisation_id, models.c.created_at, models.c.id)
