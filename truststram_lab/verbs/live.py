"""Follow a run in this kernel until its end, with a live view where there is a notebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from truststram_lab.widgets import view_of

if TYPE_CHECKING:
    from truststram_lab.federated import FederatedRun

__all__ = ["follow"]


def follow(run: FederatedRun, *, begin: Callable[[], object] | None = None) -> FederatedRun:
    """Show the run live and wait for it; Kernel > Interrupt stops it within two seconds.

    Args:
        begin: starts or resumes the run; inside the guard, so that an interrupt at any
            moment finds a run that it stops.

    Raises:
        RunStoppedError: it was stopped; the sentence says how to resume.
        TrustStramException: it failed; the sentence says why.
    """
    view = view_of(run)
    try:
        if begin is not None:
            begin()
        view.show()
        run.wait(tick=view.refresh)
    except KeyboardInterrupt:
        run.stop()
        raise run.stopped_error() from None
    finally:
        view.close()
    return run
