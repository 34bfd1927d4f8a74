"""What programs around a client need again and again: another try, and answers kept."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from truststram_lab.exceptions import (
    InsufficientResourcesError,
    InvalidInputError,
    RateLimitExceededError,
)

from .clients import TrustStramClient

__all__ = ["MISSING", "PredictionCache", "retry_on_failure", "truststram_session"]

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


#: what a cache answers where it has nothing; None and 0 are values like others
MISSING: Any = _Missing()

_RETRIED = (RateLimitExceededError, InsufficientResourcesError)


def retry_on_failure(
    max_retries: int = 3,
    delay: float = 1.0,
    backoff: float = 2.0,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Callable[[F], F]:
    """A decorator: try again where the platform is busy or asks for patience.

    Only ``RateLimitExceededError`` and ``InsufficientResourcesError`` are tried again; where the
    platform said for how long to wait (Retry-After) and that is longer, it is waited for.

    Args:
        max_retries: attempts in all, 1 or more; the last error is raised as it is.
        delay: seconds before the second attempt, 0 or more.
        backoff: factor from one wait to the next, 1 or more.
        sleep: waits so many seconds; a coroutine function waits on its event loop instead.

    Raises:
        InvalidInputError: a number is out of its range.
    """
    for name, value, least in (
        ("max_retries", max_retries, 1),
        ("delay", delay, 0),
        ("backoff", backoff, 1),
    ):
        if isinstance(value, bool) or not value >= least:
            raise InvalidInputError(f"{name} is {value!r}; use {least} or more.", field=name)

    def wait_s(attempt: int, error: Any) -> float:
        waits = max(delay * backoff ** (attempt - 1), error.retry_after or 0.0)
        log.warning("attempt %d of %d failed; again in %g s", attempt, max_retries, waits)
        return waits

    def decorate(function: F) -> F:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                for attempt in range(1, max_retries):
                    try:
                        return await function(*args, **kwargs)
                    except _RETRIED as error:
                        await asyncio.sleep(wait_s(attempt, error))
                return await function(*args, **kwargs)

            return cast("F", awaited)

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            for attempt in range(1, max_retries):
                try:
                    return function(*args, **kwargs)
                except _RETRIED as error:
                    sleep(wait_s(attempt, error))
            return function(*args, **kwargs)

        return cast("F", called)

    return decorate


class PredictionCache:
    """Answers by what was asked, the most recently used ones; for use from any thread.

    Two rows are the same if they are as JSON with sorted keys, so the order of columns does not
    matter, and 1, 1.0 and True are three.

    Args:
        cache_size: answers that are kept, 1 or more; the one unused for longest goes first.
    """

    def __init__(self, cache_size: int = 1000) -> None:
        if isinstance(cache_size, bool) or not cache_size >= 1:
            raise InvalidInputError(
                f"cache_size is {cache_size!r}; use 1 or more.", field="cache_size"
            )
        self.cache_size = cache_size
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, data: Any, default: Any = None) -> Any:
        """The answer that was kept for ``data``, else ``default``.

        Pass ``MISSING`` where None may have been kept.

        Raises:
            InvalidInputError: ``data`` cannot be written as JSON.
        """
        key = _key(data)
        with self._lock:
            if key not in self._kept:
                return default
            self._kept.move_to_end(key)
            return self._kept[key]

    def set(self, data: Any, prediction: Any) -> None:
        """Keep the answer for ``data``, whatever it is."""
        key = _key(data)
        with self._lock:
            self._kept[key] = prediction
            self._kept.move_to_end(key)
            while len(self._kept) > self.cache_size:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all; for when another version is deployed."""
        with self._lock:
            self._kept.clear()

    def cached(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A decorator for a function of the row; errors are not kept."""

        @functools.wraps(function)
        def called(data: Any) -> Any:
            found = self.get(data, MISSING)
            if found is MISSING:
                found = function(data)
                self.set(data, found)
            return found

        return called


def _key(data: Any) -> str:
    def plain(value: Any) -> Any:
        item = getattr(value, "item", None)  # numpy's scalars
        if item is None:
            raise TypeError(f"a {type(value).__name__} is none")
        return item()

    try:
        return json.dumps(data, sort_keys=True, default=plain)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"The data cannot be a key, as it is no JSON ({error}); use numbers, texts, true, "
            "false, null, lists and dicts with texts as keys.",
            field="data",
        ) from error


@contextmanager
def truststram_session(api_key: str | None = None, **options: Any) -> Iterator[TrustStramClient]:
    """A client that is closed at the end of the block; arguments as ``TrustStramClient``."""
    with TrustStramClient(api_key, **options) as client:
        yield client
