"""Hear that something of the organisation changed, without asking again and again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from truststram_lab.client import TrustStramClient

__all__ = ["News"]


class News:
    """``with News(client) as news: news.wait(5.0)`` returns when there is some, or after 5 s."""

    def __init__(self, client: TrustStramClient) -> None:
        self._heard = threading.Event()
        self._stream = client.events.stream("org", after="latest")
        self._listener = threading.Thread(target=self._listen, name="news", daemon=True)

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._listener.join(2.0)

    def wait(self, seconds: float) -> None:
        """Until something changed since the last ``wait``, or so many seconds."""
        self._heard.wait(seconds)
        self._heard.clear()

    def _listen(self) -> None:
        for _ in self._stream:
            self._heard.set()
