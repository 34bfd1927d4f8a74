"""Every error of the project, used on both sides of the wire.

A service raises one, the platform writes it as a problem (RFC 9457), the client
raises the same class again::

    TrustStramException
    ├── ConfigurationError            a setting is missing or contradicts another
    ├── NotSignedInError              no session in this kernel
    ├── AuthenticationError           401  the credential is missing, wrong or expired
    ├── PermissionDeniedError         403  the credential does not carry the scope
    ├── InvalidInputError             422  a value is wrong (is a ValueError)
    │   ├── UsageError                     a command line that does not parse
    │   └── UpdateRejectedError       422  a participant's update is unusable
    ├── NotFoundError                 404  nothing has that name (is a LookupError)
    │   ├── ModelNotFoundError        404  .model_id
    │   └── RunNotFoundError          404  .run
    ├── ConflictError                 409  the thing is in another state
    │   ├── RoundClosedError          409  the round takes no more updates
    │   └── PrivacyBudgetError        409  a release would overspend the privacy budget
    ├── PayloadTooLargeError          413  the body is over the limit
    ├── RateLimitExceededError        429  .retry_after (seconds)
    ├── InsufficientResourcesError    503  no capacity now
    ├── PlatformUnavailableError      nobody answers (is a ConnectionError)
    ├── RequestTimeoutError           no answer in time (is a TimeoutError)
    ├── PlatformError                 500  the platform failed
    └── RunStoppedError               the run was stopped; it can be resumed

A message is one sentence that names the value and says the way out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar

__all__ = [
    "AuthenticationError",
    "ConfigurationError",
    "ConflictError",
    "InsufficientResourcesError",
    "InvalidInputError",
    "ModelNotFoundError",
    "NotFoundError",
    "NotSignedInError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "PlatformError",
    "PlatformUnavailableError",
    "PrivacyBudgetError",
    "RateLimitExceededError",
    "RequestTimeoutError",
    "RoundClosedError",
    "RunNotFoundError",
    "RunStoppedError",
    "TrustStramException",
    "UpdateRejectedError",
    "UsageError",
    "nearest",
]


def nearest(value: str, choices: Iterable[str], *, most: int = 3) -> list[str]:
    """The ``most`` choices that look most like ``value``, best first (may be empty)."""
    by_folded = {choice.casefold(): choice for choice in choices}
    found = difflib.get_close_matches(value.casefold(), by_folded, n=most, cutoff=0.5)
    return [by_folded[name] for name in found]


class TrustStramException(Exception):
    """Root of every error of the project.

    Args:
        message: one sentence: the fact, the value, the way out.
        attributes: the class's public attributes (see ``attributes``), carried over the wire.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    attributes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str, **attributes: Any) -> None:
        super().__init__(message)
        unknown = set(attributes) - set(self.attributes)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no attribute {sorted(unknown)[0]!r}")
        for name in self.attributes:
            setattr(self, name, attributes.get(name))

    @property
    def message(self) -> str:
        """The sentence."""
        return str(self.args[0])

    def to_problem(self) -> dict[str, Any]:
        """The error as a problem document (RFC 9457) with ``code`` and the attributes."""
        extra = {name: getattr(self, name) for name in self.attributes}
        return {
            "type": "about:blank",
            "title": type(self).__name__,
            "status": self.status,
            "detail": self.message,
            "code": self.code,
            **{name: value for name, value in extra.items() if value is not None},
        }

    @staticmethod
    def from_problem(problem: dict[str, Any], status: int) -> TrustStramException:
        """The error that a problem document stands for.

        An unknown ``code`` becomes the class of its HTTP status, so that an older
        client understands a newer platform.
        """
        kind = _by_code().get(str(problem.get("code"))) or _by_status(status)
        detail = problem.get("detail") or problem.get("title") or f"The platform answered {status}."
        known = {name: problem[name] for name in kind.attributes if name in problem}
        return kind(str(detail), **known)

    def _render_traceback_(self) -> list[str]:
        # IPython shows exactly these lines; the cause stays attached for %debug and %tb.
        return [f"{type(self).__name__}: {self.message}"]


class ConfigurationError(TrustStramException):
    """A setting is missing or contradicts another."""

    code = "configuration"
    status = 500


class NotSignedInError(TrustStramException):
    """This kernel has no session yet."""

    code = "not_signed_in"
    status = 401


class AuthenticationError(TrustStramException):
    """The credential is missing, wrong, expired or revoked."""

    code = "authentication_failed"
    status = 401


class PermissionDeniedError(TrustStramException):
    """The credential is good but does not allow this."""

    code = "forbidden"
    status = 403


class InvalidInputError(TrustStramException, ValueError):
    """A value is wrong; ``field`` says where, ``choices`` the nearest valid ones."""

    code = "invalid_input"
    status = 422
    attributes = ("field", "choices")

    field: str | None
    choices: list[str] | None


class UsageError(InvalidInputError):
    """A command line that does not parse."""

    code = "usage"


class UpdateRejectedError(InvalidInputError):
    """A participant's update is misshapen, not finite or not what it says it is."""

    code = "update_rejected"


class NotFoundError(TrustStramException, LookupError):
    """Nothing has that name; ``choices`` are the nearest names."""

    code = "not_found"
    status = 404
    attributes = ("name", "choices")

    name: str | None
    choices: list[str] | None


class ModelNotFoundError(NotFoundError):
    """No model has that name, version or id."""

    code = "model_not_found"
    attributes = ("model_id", "choices")

    model_id: str | None


class RunNotFoundError(NotFoundError):
    """No run has that name or id."""

    code = "run_not_found"
    attributes = ("run", "choices")

    run: str | None


class ConflictError(TrustStramException):
    """The thing is in another state than the request needs."""

    code = "conflict"
    status = 409


class RoundClosedError(ConflictError):
    """The round takes no more updates."""

    code = "round_closed"


class PrivacyBudgetError(ConflictError):
    """A release would overspend the privacy budget; nothing was drawn or charged.

    ``spent``, ``asked`` and ``budget`` are epsilons at the budget's delta; ``fits`` is how many
    of the release's steps would still fit.
    """

    code = "privacy_budget"
    attributes = ("spent", "asked", "budget", "fits")


class PayloadTooLargeError(TrustStramException):
    """The body is larger than the platform takes."""

    code = "payload_too_large"
    status = 413


class RateLimitExceededError(TrustStramException):
    """Too many requests; ``retry_after`` is in seconds."""

    code = "rate_limited"
    status = 429
    attributes = ("retry_after",)

    retry_after: float | None


class InsufficientResourcesError(TrustStramException):
    """The platform has no capacity for this now."""

    code = "insufficient_resources"
    status = 503
    attributes = ("retry_after",)

    retry_after: float | None


class PlatformUnavailableError(TrustStramException, ConnectionError):
    """Nobody answers at the platform's address."""

    code = "unavailable"
    status = 503


class RequestTimeoutError(TrustStramException, TimeoutError):
    """The platform did not answer in time."""

    code = "timeout"
    status = 504


class PlatformError(TrustStramException):
    """The platform failed; its log has the reason under ``request_id``."""

    code = "internal"
    status = 500
    attributes = ("request_id",)

    request_id: str | None


class RunStoppedError(TrustStramException):
    """The run was stopped before its last round; it can be resumed."""

    code = "run_stopped"
    status = 409
    attributes = ("run",)

    run: str | None


def _subclasses(kind: type[TrustStramException]) -> Iterable[type[TrustStramException]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _by_code() -> dict[str, type[TrustStramException]]:
    # Only who declares a code answers to it: a private refinement elsewhere inherits one.
    return {kind.code: kind for kind in _subclasses(TrustStramException) if "code" in vars(kind)}


def _by_status(status: int) -> type[TrustStramException]:
    known: dict[int, type[TrustStramException]] = {
        401: AuthenticationError,
        403: PermissionDeniedError,
        404: NotFoundError,
        409: ConflictError,
        413: PayloadTooLargeError,
        429: RateLimitExceededError,
        503: InsufficientResourcesError,
        504: RequestTimeoutError,
    }
    if status in known:
        return known[status]
    return InvalidInputError if 400 <= status < 500 else PlatformError
