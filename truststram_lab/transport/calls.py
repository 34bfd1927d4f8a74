"""A call to the platform, declared once and driven by any driver.

A resource class declares each call as a method that *describes* it::

    class Models(Resource[D]):
        @call
        def get(self, name: str) -> Call[Model]:
            return Call("GET", f"/api/v1/models/{quote(name)}", Model)

On a sync client ``client.models.get("x")`` returns a ``Model``; on an async client it
returns an awaitable of one. The description is the same object.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from pydantic import BaseModel, ValidationError

from truststram_lab.exceptions import InvalidInputError

T = TypeVar("T")
P = ParamSpec("P")

__all__ = ["AsyncDriver", "Call", "Resource", "Response", "Steps", "SyncDriver", "call", "steps"]


@dataclass(frozen=True)
class Response:
    """An answer as it came; header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request and the type of its answer.

    Args:
        method: HTTP method.
        path: absolute path, already quoted.
        answer: pydantic model or a list of one, ``bytes`` for a raw body, ``Response`` for
            the body with its headers, or ``None`` for no body.
        json: request body as a model; exclusive with ``content``.
        content: raw request body (application/octet-stream).
        query: query parameters; None values are left out.
        headers: extra headers.
        timeout_s: seconds to wait for the answer's start.
        idempotency_key: set by the engine for changes when None; "" switches it off
            (predictions, content-addressed uploads).
        repeatable: sending it twice does no more than sending it once, although it is a
            change without a key (predictions, content-addressed uploads).
        unwrap: makes the method's value of the validated answer.
    """

    method: str
    path: str
    answer: Any
    json: BaseModel | None = field(default=None, repr=False)
    content: bytes | None = field(default=None, repr=False)
    query: Mapping[str, str | int | float | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 30.0
    idempotency_key: str | None = None
    repeatable: bool = False
    unwrap: Callable[[Any], T] | None = None


class SyncDriver(Protocol):
    """Sends a call and returns its answer; raises TrustStramException."""

    def send(self, call: Call[T]) -> T: ...


class AsyncDriver(Protocol):
    """The same, awaited."""

    async def asend(self, call: Call[T]) -> T: ...


D = TypeVar("D", SyncDriver, AsyncDriver, covariant=True)


class Resource(Generic[D]):
    """A group of calls bound to a driver."""

    def __init__(self, driver: D) -> None:
        self._driver: D = driver


class _Declared(ABC, Generic[P, T]):
    """A method's declaration, bound to the sync or the async driver of its resource."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Any]) -> None:
        self.describe = describe
        # Typed for functions, and good for any object: it only sets attributes.
        wrapper: Any = self
        functools.update_wrapper(wrapper, describe)

    @overload
    def __get__(self, resource: None, owner: type) -> Self: ...
    @overload
    def __get__(self, resource: Resource[SyncDriver], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(
        self, resource: Resource[AsyncDriver], owner: type
    ) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, resource: Any, owner: type) -> Any:
        return self if resource is None else self._bound(resource, resource._driver)

    @abstractmethod
    def _bound(self, resource: Any, driver: Any) -> Any:
        """The method that makes the calls."""


class call(_Declared[P, T]):  # noqa: N801 - used as a decorator
    """Turns a method that describes a call into one that makes it."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Call[T]]) -> None:
        super().__init__(describe)

    def _bound(self, resource: Any, driver: Any) -> Any:
        send = driver.asend if hasattr(driver, "asend") else driver.send

        @functools.wraps(self.describe)
        def bound(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                described = self.describe(resource, *args, **kwargs)
            except ValidationError as error:
                raise _invalid(error) from error
            return send(described)

        return bound


#: yields calls, is sent their answers, and returns the value
Steps = Generator[Call[Any], Any, T]


class steps(_Declared[P, T]):  # noqa: N801 - used as a decorator
    """Turns a method that describes several calls, one after the other, into one that makes them.

    A call's error is raised where the method yielded the call.
    """

    def __init__(self, describe: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        super().__init__(describe)

    def _bound(self, resource: Any, driver: Any) -> Any:
        if hasattr(driver, "asend"):

            @functools.wraps(self.describe)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                todo, answer = self.describe(resource, *args, **kwargs), None
                try:
                    call = _next(todo, answer)
                    while True:
                        try:
                            answer = await driver.asend(call)
                        except Exception as error:  # noqa: BLE001 - the method's to handle
                            call = todo.throw(error)
                        else:
                            call = _next(todo, answer)
                except StopIteration as done:
                    return done.value

            return awaited

        @functools.wraps(self.describe)
        def bound(*args: P.args, **kwargs: P.kwargs) -> Any:
            todo, answer = self.describe(resource, *args, **kwargs), None
            try:
                call = _next(todo, answer)
                while True:
                    try:
                        answer = driver.send(call)
                    except Exception as error:  # noqa: BLE001 - the method's to handle
                        call = todo.throw(error)
                    else:
                        call = _next(todo, answer)
            except StopIteration as done:
                return done.value

        return bound


def _next(todo: Steps[Any], answer: Any) -> Call[Any]:
    try:
        return todo.send(answer)
    except ValidationError as error:
        raise _invalid(error) from error


def _invalid(error: ValidationError) -> InvalidInputError:
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the request"
    shown = repr(first["input"])
    value = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return InvalidInputError(f"{where}={value} is refused: {first['msg']}.", field=where)
