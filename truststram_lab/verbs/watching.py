"""Follow something that has no end of its own, until somebody stops it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from truststram_lab.widgets.kernel import attended, in_kernel
from truststram_lab.widgets.live import LiveView

from .news import News
from .results import Answer

if TYPE_CHECKING:
    from truststram_lab.client import TrustStramClient

__all__ = ["watched"]

A = TypeVar("A", bound=Answer)

#: not everything tells (requests do not), so it is looked at every so many seconds anyway
_LOOK_S = 2.0


def watched(client: TrustStramClient, look: Callable[[], A]) -> A:
    """Show what ``look`` finds, live, until somebody stops it; the last of it.

    Where nobody sits in front of the cell it is shown once, as a cell that never ends would
    hold up all that follow.
    """
    found = look()
    if not in_kernel() or not attended():
        return found
    ended: list[bool] = []
    view = LiveView(
        lambda: found.card(), stop=lambda: ended.append(True), hint="Stop: Kernel > Interrupt"
    )
    try:
        with News(client) as news:
            view.show()
            while not ended:
                news.wait(_LOOK_S)
                found = look()
                view.refresh()
    except KeyboardInterrupt:
        pass  # the way to end it
    finally:
        view.close()
    return found
