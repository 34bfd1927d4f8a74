"""Results as cards: static HTML, text and data, made from schemas alone."""

from __future__ import annotations

from .accounts import doctor_card, identity_card, notice_card, sandbox_card, where_card
from .card import Card
from .federation import run_card, runs_card
from .registry import model_card, models_card
from .serving import adds_up, deployments_card, prediction_card
from .text import FOLD_MARK

__all__ = [
    "FOLD_MARK",
    "Card",
    "adds_up",
    "deployments_card",
    "doctor_card",
    "identity_card",
    "model_card",
    "models_card",
    "notice_card",
    "prediction_card",
    "run_card",
    "runs_card",
    "sandbox_card",
    "where_card",
]
