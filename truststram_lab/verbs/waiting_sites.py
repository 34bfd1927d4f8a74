"""Wait until a federation's sites have joined, live: then a run can be opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from truststram_lab.exceptions import RunStoppedError
from truststram_lab.render import Card, federation_card
from truststram_lab.widgets.kernel import in_kernel
from truststram_lab.widgets.live import LiveView

from .news import News

if TYPE_CHECKING:
    from truststram_lab.client import TrustStramClient
    from truststram_lab.schemas.participation import Preflight

__all__ = ["await_sites"]

#: Events tell when to look again; without any, a look every so many seconds.
_LOOK_S = 5.0


def await_sites(client: TrustStramClient, name: str, least: int | None) -> Preflight:
    """Wait for the sites' descriptions; Kernel > Interrupt gives up.

    Args:
        least: as many sites suffice; None waits for everybody who is invited.

    Returns:
        The comparison of their tables; at once when something is wrong with them.

    Raises:
        RunStoppedError: interrupted; the sentence says who is missing.
    """
    federation = client.federations.get(name)
    found = client.federations.preflight(name)

    def card() -> Card:
        return federation_card(federation, found, said="Waiting for sites to join, then it opens.")

    view = LiveView(card) if in_kernel() else None
    try:
        with News(client) as news:
            if view is not None:
                view.show()
            while not _enough(found, least):
                news.wait(_LOOK_S)
                found = client.federations.preflight(name)
                if view is not None:
                    view.refresh()
    except KeyboardInterrupt:
        missing = [site.name for site in found.sites if site.status == "invited"]
        raise RunStoppedError(
            f"Nothing was opened: {', '.join(missing[:5]) or 'too few sites'} of {name} did not "
            "join yet; run the line again to go on waiting."
        ) from None
    finally:
        if view is not None:
            view.close()
    return found


def _enough(found: Preflight, least: int | None) -> bool:
    described = [site for site in found.sites if site.status != "invited"]
    if not found.sites or any(site.problems for site in described):
        return True  # waiting would not help; opening says why
    return bool(described) and len(described) >= (least or len(found.sites))
