"""How a site notices that its run is over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from truststram_lab.exceptions import TrustStramException
from truststram_lab.schemas.sites import SiteView

__all__ = ["how_it_ended"]

#: Silence after the last round that counts as the end, for a site that may not look at the run.
_QUIET_S = 60.0
_ENDED = ("completed", "failed", "stopped")


def how_it_ended(
    view: SiteView, status_of: Callable[[str], tuple[str, str | None]] | None, quiet_s: float
) -> tuple[bool, str | None]:
    """Whether the run is over, and why if it did not get to its end.

    Args:
        view: of a site that takes part in a run.
        status_of: says how a run stands, and the reason; None where nobody here may look.
        quiet_s: seconds since the site's last receipt.
    """
    assert view.run is not None, "the caller looked"
    if status_of is not None:
        with contextlib.suppress(TrustStramException):  # then the silence tells
            status, reason = status_of(view.run)
            if status == "completed":
                return True, None
            words = f": {reason}" if reason else ""
            return status in _ENDED, f"the run was {status}{words}"
    return view.number >= view.rounds > 0 and quiet_s > _QUIET_S, None
