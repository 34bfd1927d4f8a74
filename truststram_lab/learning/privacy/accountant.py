"""From what was done to what it is worth: one door to the accountants.

Three numbers for the same releases, never compared with one another: "analytic Gaussian" is
exact and needs full participation; "RDP" is quick, and an upper bound some percent too high;
"PRV" is tight to a thousandth and takes a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...exceptions import InvalidInputError
from ...schemas.privacy import Accountant, GaussianUse
from .gaussian import compose_mu, gaussian_epsilon
from .prv import SMALLEST_DELTA, prv_epsilon
from .rdp import rdp_epsilon, rdp_total

__all__ = ["Epsilon", "account", "require_delta"]


@dataclass(frozen=True)
class Epsilon:
    """An epsilon with what it depends on; infinite where a release had no noise."""

    epsilon: float
    delta: float
    accountant: Accountant


def account(
    uses: Sequence[GaussianUse],
    delta: float,
    how: Literal["live", "tight", "RDP"] = "live",
) -> Epsilon:
    """Epsilon of all ``uses`` together at ``delta``.

    More uses, more steps, a higher rate or less noise never lower it.

    Args:
        uses: Gaussian releases on the same data under one adjacency; none give epsilon 0. With
            a sample rate below 1, the adjacency is add-or-remove.
        delta: above 0, below 1.
        how: "live" is exact where everybody takes part in every step, else RDP, for a round
            that must not wait; "tight" is PRV in the place of RDP, its upper bound, for the end
            of a run (below delta 1e-10 it is RDP as well); "RDP" is RDP.

    Raises:
        InvalidInputError: ``delta`` is out of range.
    """
    require_delta(delta)
    whole = how != "RDP" and all(use.sample_rate == 1 for use in uses)
    name: Accountant = "analytic Gaussian" if whole else "RDP"
    if any(use.noise_multiplier == 0 for use in uses):
        return Epsilon(math.inf, delta, name)
    if whole:
        mus = [math.sqrt(use.steps) / use.noise_multiplier for use in uses]
        return Epsilon(gaussian_epsilon(delta, compose_mu(mus)), delta, name)
    by_rdp = rdp_epsilon(rdp_total(uses), delta)[0] if uses else 0.0
    if how == "tight" and delta >= SMALLEST_DELTA and math.isfinite(by_rdp):
        by_prv = prv_epsilon(uses, delta).high
        # Both are upper bounds, so the smaller one is too.
        return min(
            Epsilon(by_prv, delta, "PRV"), Epsilon(by_rdp, delta, "RDP"), key=lambda e: e.epsilon
        )
    return Epsilon(by_rdp, delta, name)


def require_delta(delta: float) -> None:
    """Refuse a delta that is no chance.

    Raises:
        InvalidInputError: ``delta`` is not between 0 and 1.
    """
    if not 0 < delta < 1:
        near = "1e-5" if not delta >= 1 else "0.01"
        raise InvalidInputError(
            f"Delta {delta:g} is no chance between 0 and 1; use one well below 1 / rows, "
            f"for example {near}.",
            field="delta",
        )
