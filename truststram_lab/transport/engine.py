"""A call from its description to its value, without I/O.

``Engine.run`` is a generator. It yields what it needs (an address, an exchange, a pause) and
is sent the result; the sync and the async driver differ in nothing but how they obey::

    steps = engine.run(call)
    Resolve -> Target,  Request -> Response | Failure,  Wait -> None
"""

from __future__ import annotations

import email.utils
import json
import random
import re
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NoReturn, TypeVar
from urllib.parse import urlencode

from pydantic import TypeAdapter, ValidationError

from truststram_lab._version import __version__
from truststram_lab.exceptions import (
    ConfigurationError,
    InsufficientResourcesError,
    PlatformError,
    PlatformUnavailableError,
    RateLimitExceededError,
    RequestTimeoutError,
    TrustStramException,
)
from truststram_lab.schemas.base import PROTOCOL, Health

from .bodies import is_intact, json_bytes
from .calls import Call, Response
from .targets import Target

__all__ = ["Engine", "Failure", "Request", "Resolve", "RetryPolicy", "Wait", "untrusted"]

T = TypeVar("T")

USER_AGENT = f"truststram-lab/{__version__}"

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_BUSY = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how patiently a call is tried.

    Args:
        attempts: at least 1, the first one included.
        base_s: upper bound of the first pause; it doubles with every attempt.
        cap_s: upper bound of any pause the platform did not ask for.
        longest_asked_s: a longer ``Retry-After`` is handed to the caller at once.
    """

    attempts: int = 3
    base_s: float = 0.2
    cap_s: float = 5.0
    longest_asked_s: float = 60.0


@dataclass(frozen=True)
class Resolve:
    """Find the platform; ``stale`` is the address that did not work, None at the start."""

    stale: Target | None


@dataclass(frozen=True)
class Wait:
    """Pause, interruptibly."""

    seconds: float


@dataclass(frozen=True)
class Request:
    """One exchange; ``live`` asks to leave the body of a 200 unread (event streams)."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    timeout_s: float
    live: bool = False


@dataclass(frozen=True)
class Failure:
    """No answer: why, and whether the platform may have seen the request."""

    kind: Literal["connect", "timeout", "cut"]
    reason: str
    sent: bool


Step = Resolve | Wait | Request
Exchange = Generator[Step, Any, T]


class Engine:
    """Runs calls; holds nothing but the policy and which addresses spoke our protocol.

    Args:
        policy: attempts and pauses.
        jitter: a number in [0, 1); full jitter spreads the retries of many sites
            (Brooker 2015, "Exponential Backoff And Jitter", AWS Architecture Blog).
        clock: seconds since the epoch, for a ``Retry-After`` that is a date.
    """

    def __init__(
        self,
        policy: RetryPolicy | None = None,
        *,
        jitter: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.policy = policy or RetryPolicy()
        self._jitter = jitter or random.SystemRandom().random
        self._clock = clock
        self._greeted: set[str] = set()

    def run(self, call: Call[T], *, live: bool = False) -> Exchange[T]:
        """Make the call; returns its value or raises the platform's error.

        After the request may have reached the platform it is sent again only when that
        is harmless: a safe method, an idempotency key, or ``call.repeatable``.
        """
        body, extra = _body(call)
        key = _key(call)
        if key:
            extra["idempotency-key"] = key
        harmless = call.method in _SAFE or bool(key) or call.repeatable
        target: Target = yield Resolve(None)
        attempt, asked_again = 1, False
        while True:
            request = _request(call, target, body, extra, live)
            reply = yield from self._exchange(request, target)
            if isinstance(reply, Response) and reply.status < 300:
                return _value(call, reply)
            if isinstance(reply, Response) and reply.status == 401 and not asked_again:
                # Somebody may have reset the platform since: a 401 was not acted upon.
                asked_again, fresh = True, (yield Resolve(target))
                if (fresh.base_url, fresh.token) != (target.base_url, target.token):
                    target = fresh
                    continue
            pause = self._pause(reply, attempt, harmless, bool(key))
            if pause is None:
                _raise(reply, call, target, self._asked(reply))
            attempt += 1
            if isinstance(reply, Failure) and reply.kind == "connect":
                self._greeted.discard(target.base_url)
                target = yield Resolve(target)
            yield Wait(pause)

    def _exchange(self, request: Request, target: Target) -> Exchange[Response | Failure]:
        if target.protocol is None and target.base_url not in self._greeted:
            health = Request("GET", f"{target.base_url}/health", _headers(None), None, 10.0)
            greeting: Response | Failure = yield health
            if isinstance(greeting, Failure):
                return Failure(greeting.kind, greeting.reason, sent=False)
            if greeting.status in _BUSY:
                return greeting
            _check_protocol(_protocol(greeting), target.base_url)
            self._greeted.add(target.base_url)
        elif target.protocol is not None:
            _check_protocol(target.protocol, target.base_url)
        reply: Response | Failure = yield request
        if isinstance(reply, Response) and not (request.live or is_intact(reply)):
            return Failure("cut", "the body arrived damaged", sent=True)
        return reply

    def _pause(
        self, reply: Response | Failure, attempt: int, harmless: bool, keyed: bool
    ) -> float | None:
        """Seconds until the next attempt; None when this one was the last."""
        asked = self._asked(reply)
        if isinstance(reply, Failure):
            again = harmless or not reply.sent
        elif reply.status == 409:
            # Our own first try is still at work under this key; the platform says when to ask.
            again = keyed and attempt > 1 and asked is not None
        else:
            again = harmless and reply.status in _BUSY
        if not again or attempt >= self.policy.attempts:
            return None
        if asked is not None and asked > self.policy.longest_asked_s:
            return None
        ceiling = min(self.policy.cap_s, self.policy.base_s * 2.0 ** (attempt - 1))
        return max(asked or 0.0, ceiling * self._jitter())

    def _asked(self, reply: Response | Failure) -> float | None:
        """Seconds in ``Retry-After`` (RFC 9110, section 10.2.3: a number or a date)."""
        if isinstance(reply, Failure) or "retry-after" not in reply.headers:
            return None
        text = reply.headers["retry-after"].strip()
        if text.isascii() and text.replace(".", "", 1).isdigit():
            return float(text)
        try:
            then: float = email.utils.parsedate_to_datetime(text).timestamp()
        except ValueError:
            return None
        return max(0.0, then - self._clock())


def _key(call: Call[Any]) -> str:
    if call.method in _SAFE:
        return ""
    return str(uuid.uuid4()) if call.idempotency_key is None else call.idempotency_key


def _body(call: Call[Any]) -> tuple[bytes | None, dict[str, str]]:
    """The request's body, and the headers that all attempts share."""
    extra = {name.lower(): value for name, value in call.headers.items()}
    if call.json is not None:
        extra["content-type"] = "application/json"
        return json_bytes(call.json), extra
    if call.content is not None:
        extra.setdefault("content-type", "application/octet-stream")
    return call.content, extra


def _headers(token: str | None) -> dict[str, str]:
    headers = {"user-agent": USER_AGENT, "accept": "*/*"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    return headers


def _request(
    call: Call[Any], target: Target, body: bytes | None, extra: Mapping[str, str], live: bool
) -> Request:
    query = {name: value for name, value in call.query.items() if value is not None}
    tail = f"?{urlencode(query)}" if query else ""
    return Request(
        method=call.method,
        url=f"{target.base_url}{call.path}{tail}",
        headers={**_headers(target.token), **extra},
        body=body,
        timeout_s=call.timeout_s,
        live=live,
    )


def _protocol(greeting: Response) -> int | None:
    if greeting.status != 200:
        return None
    try:
        return Health.model_validate_json(greeting.body).protocol
    except ValidationError:
        return None


def _check_protocol(protocol: int | None, base_url: str) -> None:
    if protocol is None:
        raise ConfigurationError(
            f"{base_url} does not answer as a TrustStram platform; check the base URL."
        )
    if protocol != PROTOCOL:
        older = "this package" if protocol > PROTOCOL else "the platform"
        raise ConfigurationError(
            f"The platform at {base_url} speaks protocol {protocol} and this package "
            f"protocol {PROTOCOL}; upgrade {older}."
        )


@lru_cache(maxsize=64)
def _adapter(answer: Any) -> TypeAdapter[Any]:
    return TypeAdapter(answer)


def _value(call: Call[T], response: Response) -> T:
    value: Any
    if call.answer is None:
        value = None
    elif call.answer is bytes:
        value = response.body
    elif call.answer is Response:
        value = response
    else:
        try:
            value = _adapter(call.answer).validate_json(response.body)
        except ValidationError as error:
            raise _misunderstood(call, error) from None
    return call.unwrap(value) if call.unwrap is not None else value


def _misunderstood(call: Call[Any], error: ValidationError) -> PlatformError:
    # The answer may hold a credential: name the place and the rule, never the value.
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the body"
    return PlatformError(
        f"The platform's answer to {call.method} {call.path} is not understood "
        f"({where}: {first['msg']}); upgrade this package or the platform."
    )


def _raise(
    reply: Response | Failure, call: Call[Any], target: Target, asked: float | None
) -> NoReturn:
    if isinstance(reply, Failure):
        # A cause without the HTTP library's frames: their locals hold the credential.
        raise _silence(reply, call, target) from OSError(reply.reason)
    raise _error(reply, target, asked)


def _error(response: Response, target: Target, asked: float | None) -> TrustStramException:
    if response.status < 400:
        return ConfigurationError(
            f"{target.base_url} answers with a redirect ({response.status}); "
            "set the base URL to the platform's own address."
        )
    try:
        problem = json.loads(response.body)
    except ValueError:
        problem = None
    error = TrustStramException.from_problem(
        problem if isinstance(problem, dict) else {}, response.status
    )
    if isinstance(error, RateLimitExceededError | InsufficientResourcesError):
        error.retry_after = asked if error.retry_after is None else error.retry_after
    return error


def untrusted(base_url: str, reason: str) -> str | None:
    """What to do about a certificate that was refused; None if the reason is another one.

    Args:
        reason: the words of ``ssl.SSLCertVerificationError``, which hold OpenSSL's own.
    """
    found = re.search(r"CERTIFICATE_VERIFY_FAILED\] [^:]*: (.+?)(?: \(_ssl\.c:\d+\))?$", reason)
    if found is None:
        return None
    why = found[1].rstrip(".")
    if re.search("mismatch|not valid for", why):
        return (
            f"The certificate at {base_url} is another name's ({why}); use the address that the "
            "certificate is made out to."
        )
    if re.search("expired|not yet valid", why):
        return (
            f"The certificate at {base_url} is not valid now ({why}); check this computer's "
            "clock, and have the platform's administrator renew it."
        )
    return (
        f"Nobody whom this computer trusts vouches for the certificate at {base_url} ({why}); set "
        "SSL_CERT_FILE to the PEM file of the authority that signed it (of the certificate itself "
        "if it is self-signed), which the platform's administrator has, and sign in again."
    )


def _silence(failure: Failure, call: Call[Any], target: Target) -> TrustStramException:
    what = f"{call.method} {call.path}"
    distrust = untrusted(target.base_url, failure.reason)
    if failure.kind == "connect" and distrust is not None:
        return PlatformUnavailableError(distrust)
    if failure.kind == "connect":
        return PlatformUnavailableError(
            f"Nobody answers at {target.base_url} ({failure.reason}); check the address and "
            "that the platform is running."
        )
    if failure.kind == "timeout":
        return RequestTimeoutError(
            f"{target.base_url} did not answer {what} within {call.timeout_s:g} s; try again."
        )
    return PlatformUnavailableError(
        f"The connection to {target.base_url} broke during {what} ({failure.reason}); try again."
    )
