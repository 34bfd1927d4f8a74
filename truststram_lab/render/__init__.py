"""Results as cards: static HTML, text and data, made from schemas alone."""

from __future__ import annotations

from .accounts import doctor_card, identity_card, notice_card, sandbox_card, where_card
from .card import Card, LiveCard
from .comparison import compared, comparison_card
from .consent import preview_card
from .contributions import contributions_card, without_card
from .dealt import dealt_card
from .deployments import deployment_card, deployments_card, prediction_log_card
from .federation import live_run_card, run_card, runs_card
from .participants import (
    federation_card,
    federations_card,
    invitations_card,
    site_card,
)
from .registry import model_card, models_card
from .replay import replay_card
from .sent import sent_card
from .serving import adds_up, prediction_card
from .simulation import simulated_card
from .sweeps import SweepLine, live_sweep_card, sweep_card
from .text import FOLD_MARK

__all__ = [
    "FOLD_MARK",
    "Card",
    "LiveCard",
    "SweepLine",
    "adds_up",
    "compared",
    "comparison_card",
    "contributions_card",
    "dealt_card",
    "deployment_card",
    "deployments_card",
    "doctor_card",
    "federation_card",
    "federations_card",
    "identity_card",
    "invitations_card",
    "live_run_card",
    "live_sweep_card",
    "model_card",
    "models_card",
    "notice_card",
    "prediction_card",
    "prediction_log_card",
    "preview_card",
    "replay_card",
    "run_card",
    "runs_card",
    "sandbox_card",
    "sent_card",
    "simulated_card",
    "site_card",
    "sweep_card",
    "where_card",
    "without_card",
]
