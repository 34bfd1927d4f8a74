"""A stop that comes from elsewhere: the panel, a REST call, another kernel."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

from truststram_lab.schemas.federation import Run

if TYPE_CHECKING:
    from truststram_lab.client import TrustStramClient

__all__ = ["stop_on_event"]


def stop_on_event(
    client: TrustStramClient, run: Run, stop: threading.Event, open_things: ExitStack
) -> None:
    """Set ``stop`` as soon as the platform says that the run was stopped, on a thread of its own
    that ends with ``open_things``."""
    stream = client.events.stream(f"run:{run.id}", after=run.last_event)

    def listen() -> None:
        for event in stream:
            if event.type == "run.stopped":
                stop.set()

    listener = threading.Thread(target=listen, name=f"events {run.name}", daemon=True)
    listener.start()
    open_things.callback(listener.join, 2.0)
    open_things.callback(stream.close)
