"""Event streams over the drivers: iterate, survive cuts, stop from anywhere."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Self

from truststram_lab.exceptions import TrustStramException
from truststram_lab.schemas.base import Event

from .drivers import AsyncHttpDriver, AsyncLiveBody, HttpDriver, LiveBody
from .engine import Failure
from .sse import Subscription

__all__ = ["AsyncEventStream", "EventStream"]


class EventStream:
    """The events of a stream, in order, each once; ends when the stream is final.

    ``close`` may be called from any thread; an iteration that waits ends at once.

    Args:
        driver: the stream's own, closed with it.
        subscription: which stream, after which event.
    """

    def __init__(self, driver: HttpDriver, subscription: Subscription) -> None:
        self._driver = driver
        self._subscription = subscription
        self._ready: deque[Event] = deque()
        self._body: LiveBody | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        while not self._ready:
            if self._driver.closed:
                raise StopIteration
            try:
                self._advance()
            except TrustStramException:
                if self._driver.closed:
                    raise StopIteration from None
                self.close()
                raise
        return self._ready.popleft()

    def _advance(self) -> None:
        if self._body is None:
            self._body = self._driver.open(self._subscription.call())
            return
        chunk = self._body.read()
        if isinstance(chunk, bytes) and chunk:
            self._ready.extend(self._subscription.feed(chunk))
            return
        self._body.close()
        self._body = None
        pause = self._subscription.ended(cut=isinstance(chunk, Failure))
        if pause is None:
            self.close()
        else:
            self._driver.pause(pause)

    def close(self) -> None:
        """Stop; events that were not read yet are dropped."""
        self._ready.clear()
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncEventStream:
    """The same with ``async for``; cancel the task or ``aclose`` to stop."""

    def __init__(self, driver: AsyncHttpDriver, subscription: Subscription) -> None:
        self._driver = driver
        self._subscription = subscription
        self._ready: deque[Event] = deque()
        self._body: AsyncLiveBody | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._ready:
            if self._driver.closed:
                raise StopAsyncIteration
            try:
                await self._advance()
            except TrustStramException:
                if self._driver.closed:
                    raise StopAsyncIteration from None
                await self.aclose()
                raise
        return self._ready.popleft()

    async def _advance(self) -> None:
        if self._body is None:
            self._body = await self._driver.open(self._subscription.call())
            return
        chunk = await self._body.read()
        if isinstance(chunk, bytes) and chunk:
            self._ready.extend(self._subscription.feed(chunk))
            return
        await self._body.aclose()
        self._body = None
        pause = self._subscription.ended(cut=isinstance(chunk, Failure))
        if pause is None:
            await self.aclose()
        else:
            await asyncio.sleep(pause)

    async def aclose(self) -> None:
        """Stop; events that were not read yet are dropped."""
        self._ready.clear()
        await self._driver.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
