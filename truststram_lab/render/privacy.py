"""What a run's card says of privacy: the claim, its number as it grows, and what is outside it."""

from __future__ import annotations

import math

from ..schemas.federation import Run
from ..schemas.filters import GaussianNoise
from ..schemas.privacy import PrivacyStatement, RecordPlan
from ..schemas.run_privacy import RunPrivacy
from .document import Block, Cell, Code, Fold, Line, Strong, facts
from .numbers import clip

#: In a plan's ``config``: what the run may spend, and the noise of its statistics round.
_EPSILON = "dp_epsilon"
_STATISTICS_NOISE = "statistics_noise"

__all__ = ["privacy_fold", "privacy_lines", "seen_words"]


def privacy_lines(run: Run, spent: RunPrivacy | None) -> list[Block]:
    """One or two lines that are never left out."""
    plan = run.plan.privacy
    stated = _statement(run, spent)
    if plan is None:
        if stated is not None:
            return [
                Line.of(Strong("Privacy: "), clip(stated.text, 600)),
                Line.of(clip(stated.outside, 300)),
            ]
        if any(isinstance(found, GaussianNoise) for found in run.plan.filters):
            return [Line.of("Privacy: noise is added by a filter; nothing is stated yet.")]
        if run.plan.hosted is not None:
            return [
                Line.of(
                    "Privacy: none added. This kernel trained every virtual client; the platform "
                    "saw one host and its aggregate of each round."
                )
            ]
        return [
            Line.of(
                "Privacy: none added; the platform saw every site's update. Try ", Code("--dp 3")
            )
        ]
    budget = spent.budget if spent is not None else run.plan.config.get(_EPSILON)
    now = spent.epsilon if spent is not None else stated.epsilon if stated is not None else 0.0
    of = "" if budget is None else f" of {float(budget):g}"
    words = f"{plan.unit}-level, epsilon {_epsilon(now)}{of} at delta {plan.delta:.3g}"
    if spent is not None and spent.before != 0:
        words += (
            f"; {_epsilon(spent.before)} spent on this data before, together "
            f"{_epsilon(spent.together)}"
        )
        words += "" if spent.limit is None else f" of at most {spent.limit:g}"
    lines: list[Block] = [Line.of(Strong("Privacy: "), f"{words}.")]
    if run.plan.hosted is not None:
        lines.append(
            Line.of(
                "Simulated: this kernel has every virtual client's rows, so the number says what "
                "real clients' updates would tell, not that anybody is hidden from this kernel."
            )
        )
    if spent is None and _STATISTICS_NOISE in run.plan.config:
        lines.append(
            Line.of(
                "That counts the rounds; the noised means and variances come on top, in the "
                "owner's ledger."
            )
        )
    if stated is not None:
        lines.append(Line.of(clip(stated.text, 600)))
        lines.append(Line.of(clip(stated.outside, 300)))
    return lines


def privacy_fold(run: Run, spent: RunPrivacy | None) -> list[Block]:
    """Everything that the number depends on."""
    stated = _statement(run, spent)
    if stated is None:
        return []
    rows: list[tuple[str, Cell]] = [
        ("hidden is", f"a {stated.unit}, {stated.adjacency}"),
        ("epsilon", _epsilon(stated.epsilon)),
        ("delta", f"{stated.delta:.4g}"),
        ("mechanism", clip(stated.mechanism, 200)),
        ("sampling", clip(stated.sampling, 200)),
        ("accountant", stated.accountant or "none"),
        ("trust", stated.trust),
        ("outside epsilon", clip(stated.outside, 300)),
    ]
    if spent is not None and run.plan.privacy is not None:
        rows.append(("spent on this data before", _epsilon(spent.before)))
        rows.append(("together", _epsilon(spent.together)))
        limit = "none was set" if spent.limit is None else f"{spent.limit:g}"
        rows.append(("limit of this data", limit))
        if spent.statistics:
            rows.append(("means and variances", clip(spent.statistics, 300)))
    if run.plan.simulated:
        rows.append(("alone and pooled", "trained in this kernel without noise, to compare with"))
    return [Fold("What the privacy number means", (facts("Privacy", rows),))]


def seen_words(run: Run) -> str:
    """What the platform could make of the updates that it got."""
    if run.plan.hosted is not None and run.plan.privacy is not None:
        return (
            "It got one mean a round from the host, noised before it left, and never a virtual "
            "client's update."
        )
    if isinstance(run.plan.privacy, RecordPlan):
        return "It got updates whose noise was drawn at the sites; it could read them as they are."
    if run.plan.privacy is not None:
        return "It could read every update before it added the noise; what it publishes is noised."
    if any(isinstance(found, GaussianNoise) for found in run.plan.filters):
        return "It got updates to which the sites had added noise; nothing was encrypted."
    return "It could read every update: no noise was added, nothing was encrypted against it."


def _statement(run: Run, spent: RunPrivacy | None) -> PrivacyStatement | None:
    if spent is not None and spent.statement is not None:
        return spent.statement
    found: PrivacyStatement | None = getattr(run, "statement", None)
    return found


def _epsilon(value: float | None) -> str:
    """Three digits, rounded up: a claim is never smaller than the number."""
    if value is None or math.isinf(value):
        return "infinite"
    if value == 0:
        return "0"
    place = 10.0 ** (math.floor(math.log10(value)) - 2)
    up = math.ceil(value / place - 1e-9) * place
    return f"{up:,.0f}" if up >= 100 else f"{up:.3g}"
