"""The tables of the control state.

Every row belongs to an organisation. Instants are texts (ISO 8601, UTC, see
``ids.timestamp``); documents are JSON in the shape of their schema. The migrations under
``migrations`` build exactly this, and a test compares the two.
"""

from __future__ import annotations

from .accounts import credentials, idempotency_keys, organisations, principals, token_families
from .columns import metadata
from .events import events, streams
from .federations import (
    budget_entries,
    budgets,
    devices,
    federations,
    participants,
    personal_states,
    site_descriptions,
)
from .registry import blobs, model_aliases, model_versions, models
from .runs import rounds, run_sites, runs, updates
from .serving import endpoints, revisions

__all__ = [
    "blobs",
    "budget_entries",
    "budgets",
    "credentials",
    "devices",
    "endpoints",
    "events",
    "federations",
    "idempotency_keys",
    "metadata",
    "model_aliases",
    "model_versions",
    "models",
    "organisations",
    "participants",
    "personal_states",
    "principals",
    "revisions",
    "rounds",
    "run_sites",
    "runs",
    "site_descriptions",
    "streams",
    "token_families",
    "updates",
]
