"""What may be claimed, in words: every number with all that it depends on."""

from __future__ import annotations

import math

from ...schemas.privacy import (
    Adjacency,
    ClientPlan,
    LocalPlan,
    PrivacyPlan,
    PrivacyStatement,
    RecordPlan,
    Trust,
    Unit,
)
from .accountant import Epsilon, account

__all__ = ["epsilon_text", "no_guarantee", "statement"]

_OUTSIDE = (
    "Losses, accuracies and row counts that a site reports are outside this number, and so is "
    "whatever was computed without noise."
)
_HIDDEN: dict[tuple[Unit, Adjacency], str] = {
    ("record", "add-or-remove"): "one row more or less at a site",
    ("record", "replace"): "one row changed at a site",
    ("client", "add-or-remove"): "one site more or less",
    ("client", "replace"): "one site's update exchanged for any other",
}
_TRUST: dict[Trust, str] = {
    "platform sees every update": "the platform saw every update",
    "platform sees noised updates only": "the platform saw noised updates only",
    "host sees every update": (
        "the simulation's host saw every update, the platform one noised mean a round"
    ),
}


def epsilon_text(epsilon: float | None) -> str:
    """An epsilon for people: three digits, rounded up; None and infinity are "infinite"."""
    if epsilon is None or math.isinf(epsilon):
        return "infinite"
    if epsilon == 0:
        return "0"
    place = 10.0 ** (math.floor(math.log10(epsilon)) - 2)
    up = math.ceil(epsilon / place - 1e-9) * place
    return f"{up:,.0f}" if up >= 100 else f"{up:.3g}"


def statement(
    plan: PrivacyPlan, rounds: int | None = None, *, tight: bool = True, trust: Trust | None = None
) -> PrivacyStatement:
    """What ``rounds`` rounds of the plan guarantee (all of them by default).

    ``tight`` accounts with PRV where a sample is drawn, else with RDP, as during a run. ``trust``
    is who sees what, where that is not as the plan's mechanism has it.
    """
    done = plan.rounds if rounds is None else rounds
    uses = [plan.use(done)] if done else []
    found = account(uses, plan.delta, "tight" if tight else "live")
    if math.isinf(found.epsilon):
        return no_guarantee(plan, "no noise was added", trust=trust)
    return _stated(plan, found, done, trust or plan.trust)


def _stated(plan: PrivacyPlan, found: Epsilon, rounds: int, trust: Trust) -> PrivacyStatement:
    mechanism, sampling = _mechanism(plan), _sampling(plan)
    text = (
        f"{plan.unit.capitalize()}-level differential privacy with epsilon "
        f"{epsilon_text(found.epsilon)} at delta {plan.delta:g} after {rounds} "
        f"{'round' if rounds == 1 else 'rounds'}: it hides {_HIDDEN[plan.unit, plan.adjacency]}, "
        f"by {mechanism}, {sampling}, accounted by {found.accountant}; {_TRUST[trust]}."
    )
    if found.epsilon > 20:
        # exp(20) is half a billion: nobody is hidden by that.
        text = text[:-1] + "; an epsilon this large protects nobody."
    return PrivacyStatement(
        unit=plan.unit,
        adjacency=plan.adjacency,
        epsilon=found.epsilon,
        delta=plan.delta,
        mechanism=mechanism,
        sampling=sampling,
        accountant=found.accountant,
        trust=trust,
        text=text,
        outside=_OUTSIDE,
    )


def no_guarantee(plan: PrivacyPlan, reason: str, *, trust: Trust | None = None) -> PrivacyStatement:
    """The statement of a run that protects nobody, and why.

    Args:
        reason: a half sentence, such as "no noise was added" or "noise without clipping".
    """
    return PrivacyStatement(
        unit=plan.unit,
        adjacency=plan.adjacency,
        epsilon=None,
        delta=plan.delta,
        mechanism=_mechanism(plan),
        sampling=_sampling(plan),
        accountant=None,
        trust=trust or plan.trust,
        text=(
            f"No differential privacy: {reason}, so epsilon is infinite; "
            f"{_TRUST[trust or plan.trust]}."
        ),
        outside=_OUTSIDE,
    )


def _mechanism(plan: PrivacyPlan) -> str:
    if isinstance(plan, RecordPlan):
        return f"DP-SGD (clip {plan.clip:g}, noise multiplier {plan.noise_multiplier:.4g})"
    if isinstance(plan, ClientPlan):
        return f"DP-FedAvg (clip {plan.clip:g}, noise multiplier {plan.noise_multiplier:.4g})"
    return (
        f"local noise (clip {plan.clip:g}, sigma {plan.sigma:.4g}, sensitivity {2 * plan.clip:g})"
    )


def _sampling(plan: PrivacyPlan) -> str:
    if isinstance(plan, RecordPlan):
        return f"each row in a step with chance {plan.sample_rate:.3g}, in secret"
    if isinstance(plan, LocalPlan):
        return "every site in every round"
    if plan.cohort_rate == 1:
        return "all sites in every round"
    return f"each site in a round with chance {plan.cohort_rate:.3g}, in secret"
