"""The tokens of devices: a one-time bootstrap, then pairs that are replaced at every use.

A refresh token serves once. Using it again is what a thief and its victim do, so it revokes the
whole family (RFC 9700, section 4.14.2). One repetition is innocent: the answer was lost, or the
client died before it kept it. It is told by a nonce that the client keeps before it asks. The
successors are derived from the spent token, the nonce and a stored salt, so that the same answer
can be given again although the platform keeps hashes only.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, update

from truststram_lab.exceptions import (
    AuthenticationError,
    ConflictError,
    InvalidInputError,
    PermissionDeniedError,
    nearest,
)
from truststram_lab.schemas.accounts import (
    BootstrapToken,
    DeviceBootstrap,
    DeviceRefresh,
    DeviceRevoke,
    DeviceTokens,
    IssueBootstrap,
)
from truststram_lab.server.settings import Settings
from truststram_lab.server.stores.engine import writing
from truststram_lab.server.stores.ids import new_id, timestamp
from truststram_lab.server.stores.tables import (
    credentials,
    organisations,
    principals,
    token_families,
)

from .accounts import ROLE_SCOPES, AccountsService, Principal, digest

__all__ = ["FAMILY_S", "LONGEST_ACCESS_S", "DeviceTokensService"]

#: a family's end, in seconds after its bootstrap, however often it is refreshed
FAMILY_S = 30 * 86_400

#: the longest life of an access token, in seconds
LONGEST_ACCESS_S = 3_600

#: scopes as documented clients name them
_DOCUMENTED = {"devices:write": ROLE_SCOPES["site"], "heartbeat:write": frozenset[str]()}

_REUSED = (
    "This refresh token was used before, so all tokens of its device are revoked; bootstrap the "
    "device again."
)


class DeviceTokensService:
    """Issues, replaces and ends the tokens of devices."""

    def __init__(
        self,
        engine: Engine,
        accounts: AccountsService,
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._accounts = accounts
        self._settings = settings
        self._clock = clock

    def issue_bootstrap(self, owner: Principal, request: IssueBootstrap) -> BootstrapToken:
        """A one-time token for the site of that name, made if there is none.

        Raises:
            ConflictError: the name is a person's.
        """
        now, expires_at_s = timestamp(), self._clock() + request.expires_in_seconds
        token = f"tsb_{secrets.token_urlsafe(32)}"
        with writing(self._engine) as connection:
            found = connection.execute(
                select(principals.c.id, principals.c.role).where(
                    principals.c.organisation_id == owner.organisation_id,
                    principals.c.name == request.name,
                )
            ).one_or_none()
            if found is not None and found.role != "site":
                raise ConflictError(
                    f"{request.name!r} is a person ({found.role}), and devices act as sites; take "
                    "another name."
                )
            principal_id = new_id("sit") if found is None else found.id
            if found is None:
                connection.execute(
                    insert(principals).values(
                        id=principal_id,
                        organisation_id=owner.organisation_id,
                        name=request.name,
                        role="site",
                        created_at=now,
                    )
                )
            _keep(connection, principal_id, token, "bootstrap", now, expires_at_s)
        return BootstrapToken(
            name=request.name,
            principal_id=principal_id,
            bootstrap_token=token,
            expires_at=_instant(expires_at_s),
        )

    def bootstrap(self, token: str, request: DeviceBootstrap) -> DeviceTokens:
        """A device's first pair; the bootstrap token has served then.

        Raises:
            AuthenticationError: nobody has this token, or it was used or has expired.
            InvalidInputError: a scope is unknown, or the access token would live too long.
            PermissionDeniedError: the token is of another organisation.
        """
        if not 1 <= request.access_ttl_seconds <= LONGEST_ACCESS_S:
            raise InvalidInputError(
                f"access_ttl_seconds is {request.access_ttl_seconds}, but an access token lives 1 "
                f"to {LONGEST_ACCESS_S} seconds; leave it out for 900.",
                field="access_ttl_seconds",
            )
        scopes = _granted(request.scopes)
        now, now_s = timestamp(), self._clock()
        with writing(self._engine) as connection:
            found = _find(connection, token, "bootstrap")
            if found is None or found.revoked_at is not None or found.expires_at_s <= now_s:
                raise AuthenticationError(
                    "This is no bootstrap token, or it was used or has expired; ask an owner of "
                    "the organisation for a new one."
                )
            if self._settings.standing and request.org_id not in (found.org, found.org_id):
                raise PermissionDeniedError(
                    f"This bootstrap token belongs to organisation {found.org!r}, not "
                    f"{request.org_id!r}; set org_id to {found.org!r}."
                )
            _spend(connection, found.id, now)
            family_id = new_id("fam")
            connection.execute(
                insert(token_families).values(
                    id=family_id,
                    principal_id=found.principal_id,
                    device_identifier=request.device_identifier,
                    scopes=scopes,
                    access_ttl_s=request.access_ttl_seconds,
                    created_at=now,
                    expires_at_s=now_s + FAMILY_S,
                )
            )
            family = _family(connection, family_id)
            pair = f"tsa_{secrets.token_urlsafe(32)}", f"tsr_{secrets.token_urlsafe(32)}"
            return self._give(connection, family, found.org, pair, now, now_s)

    def refresh(self, request: DeviceRefresh) -> DeviceTokens:
        """The next pair; the refresh token has served then.

        Raises:
            AuthenticationError: nobody has this token, its family has ended, or it was used
                before: then its family ends now.
        """
        now, now_s = timestamp(), self._clock()
        with writing(self._engine) as connection:
            found = _find(connection, request.refresh_token, "refresh")
            family = None if found is None else _family(connection, found.family_id)
            if found is None or family is None:
                raise AuthenticationError(
                    "The platform does not know this refresh token; bootstrap the device again."
                )
            if family.revoked_at is not None or family.expires_at_s <= now_s:
                raise AuthenticationError(
                    "The tokens of this device were revoked, or their 30 days are over; bootstrap "
                    "the device again."
                )
            if found.revoked_at is None:
                salt = os.urandom(32)
                pair = _successors(request, salt)
                nonce = None if request.nonce is None else digest(request.nonce)
                _spend(connection, found.id, now, salt=salt, nonce_sha256=nonce)
                return self._give(connection, family, found.org, pair, now, now_s)
            again = self._answer_again(connection, request, found, family, now_s)
            if again is not None:
                return again
            # Committed before it is told: an error raised in here would undo it.
            _end(connection, family.id, "reuse", now)
        self._accounts.forget()
        raise AuthenticationError(_REUSED)

    def revoke(self, request: DeviceRevoke) -> None:
        """End the family of a refresh token; an unknown or ended one changes nothing."""
        with writing(self._engine) as connection:
            found = _find(connection, request.refresh_token, "refresh")
            if found is not None:
                _end(connection, found.family_id, request.reason, timestamp())
        self._accounts.forget()

    @staticmethod
    def _answer_again(
        connection: Connection,
        request: DeviceRefresh,
        found: Row[Any],
        family: Row[Any],
        now_s: float,
    ) -> DeviceTokens | None:
        """The answer that was given for this token and nonce; None if this is no repetition."""
        if request.nonce is None or found.salt is None or found.nonce_sha256 is None:
            return None
        if not hmac.compare_digest(digest(request.nonce), found.nonce_sha256):
            return None
        pair = _successors(request, found.salt)
        access = _find(connection, pair[0], "access")
        following = _find(connection, pair[1], "refresh")
        if access is None or following is None or following.revoked_at is not None:
            return None
        return _tokens(family, found.org, pair, access.expires_at_s, now_s)

    @staticmethod
    def _give(
        connection: Connection,
        family: Row[Any],
        org: str,
        pair: tuple[str, str],
        now: str,
        now_s: float,
    ) -> DeviceTokens:
        ends_s = min(now_s + family.access_ttl_s, family.expires_at_s)
        of = {"family_id": family.id, "scopes": family.scopes}
        _keep(connection, family.principal_id, pair[0], "access", now, ends_s, **of)
        ends = family.expires_at_s
        _keep(connection, family.principal_id, pair[1], "refresh", now, ends, **of)
        return _tokens(family, org, pair, ends_s, now_s)


def _tokens(
    family: Row[Any], org: str, pair: tuple[str, str], ends_s: float, now_s: float
) -> DeviceTokens:
    return DeviceTokens(
        access_token=pair[0],
        refresh_token=pair[1],
        expires_in=max(0, int(ends_s - now_s)),
        expires_at=_instant(ends_s),
        org_id=org,
        device_identifier=family.device_identifier,
        scopes=family.scopes,
    )


def _successors(request: DeviceRefresh, salt: bytes) -> tuple[str, str]:
    """Access and refresh token; who lacks the spent token cannot derive them from the salt."""
    secret = f"{request.refresh_token}\0{request.nonce or ''}".encode()
    return _derived("tsa", secret, salt), _derived("tsr", secret, salt)


def _derived(prefix: str, secret: bytes, salt: bytes) -> str:
    made = hmac.digest(secret, prefix.encode() + salt, "sha256")
    return f"{prefix}_{base64.urlsafe_b64encode(made).decode().rstrip('=')}"


def _granted(asked: Sequence[str]) -> list[str]:
    allowed = ROLE_SCOPES["site"]
    found: set[str] = set()
    for scope in asked:
        if scope not in allowed and scope not in _DOCUMENTED:
            choices = [*_DOCUMENTED, *sorted(allowed)]
            near = nearest(scope, choices, most=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(choices)}."
            raise InvalidInputError(
                f"{scope!r} is no scope of a device; {hint}", field="scopes", choices=near
            )
        found |= _DOCUMENTED.get(scope, {scope})
    return sorted(found)


def _find(connection: Connection, token: str, kind: str) -> Row[Any] | None:
    query = (
        select(
            credentials,
            organisations.c.name.label("org"),
            organisations.c.id.label("org_id"),
        )
        .join(principals, principals.c.id == credentials.c.principal_id)
        .join(organisations, organisations.c.id == principals.c.organisation_id)
        .where(credentials.c.token_sha256 == digest(token), credentials.c.kind == kind)
    )
    if connection.dialect.name == "postgresql":
        # Two requests with one token: the second sees what the first did.
        query = query.with_for_update(of=credentials)
    return connection.execute(query).one_or_none()


def _family(connection: Connection, family_id: str) -> Row[Any]:
    return connection.execute(select(token_families).where(token_families.c.id == family_id)).one()


def _keep(
    connection: Connection,
    principal_id: str,
    token: str,
    kind: str,
    now: str,
    expires_at_s: float,
    **more: Any,
) -> None:
    connection.execute(
        insert(credentials).values(
            id=new_id("crd"),
            principal_id=principal_id,
            token_sha256=digest(token),
            kind=kind,
            created_at=now,
            expires_at_s=expires_at_s,
            **more,
        )
    )


def _spend(connection: Connection, credential_id: str, now: str, **more: Any) -> None:
    connection.execute(
        update(credentials)
        .where(credentials.c.id == credential_id)
        .values(revoked_at=now, last_used_at=now, **more)
    )


def _end(connection: Connection, family_id: str, reason: str, now: str) -> None:
    connection.execute(
        update(token_families)
        .where(token_families.c.id == family_id, token_families.c.revoked_at.is_(None))
        .values(revoked_at=now, revoked_reason=reason)
    )
    connection.execute(
        update(credentials)
        .where(credentials.c.family_id == family_id, credentials.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
