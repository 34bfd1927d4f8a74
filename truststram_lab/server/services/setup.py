"""How a standing platform gets its administrator, and another when the key is lost.

A one-time token, shown on the platform's own terminal, proves who runs the platform; whoever
gives it over HTTP becomes the owner. The terminal's side is functions, as it comes once a
start; the other side is an object, as it counts what is tried.
"""

from __future__ import annotations

import hmac
import threading
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, Engine, insert, select, update

from truststram_lab.exceptions import AuthenticationError, ConflictError, RateLimitExceededError
from truststram_lab.schemas.setup import Administrator, SetUp
from truststram_lab.server.stores.engine import writing
from truststram_lab.server.stores.ids import new_id, timestamp
from truststram_lab.server.stores.tables import credentials, principals

from .accounts import PENDING, AccountsService, digest, ensure_organisation, revoke

__all__ = ["Setup", "reset_administrator", "setup_token"]

_VALID = timedelta(hours=24)
_TRIES = 10


def setup_token(engine: Engine) -> str | None:
    """A new token for the administrator to be, replacing the former; None if there is one.

    It serves once, within 24 hours; only its hash is stored.
    """
    now = timestamp()
    with writing(engine) as connection:
        if _owners(connection):
            return None
        organisation_id = ensure_organisation(connection, now)
        pending = _waiting(connection)
        pending_id = new_id("usr") if pending is None else pending.id
        if pending is None:
            connection.execute(
                insert(principals).values(
                    id=pending_id,
                    organisation_id=organisation_id,
                    name="first administrator",
                    role=PENDING,
                    created_at=now,
                )
            )
        return AccountsService.issue(connection, [pending_id], "tsk_setup", now)[0]


def reset_administrator(engine: Engine) -> list[str]:
    """Revoke every key of the administrators, so that ``setup_token`` gives a token again.

    Returns the names of those who were. They stay in the records, under a name that says
    until when; whoever comes next may have theirs. Models, runs and sites stay as they are.
    For a platform that does not serve: a running one trusts keys for a moment.
    """
    now = timestamp()
    with writing(engine) as connection:
        owners = _owners(connection)
        revoke(connection, [owner.id for owner in owners], 0, now)
        for owner in owners:
            connection.execute(
                update(principals)
                .where(principals.c.id == owner.id)
                .values(name=f"{owner.name} (until {now})")
            )
    return [owner.name for owner in owners]


class Setup:
    """Who comes with the token."""

    def __init__(self, engine: Engine, accounts: AccountsService) -> None:
        self._engine = engine
        self._accounts = accounts
        self._lock = threading.Lock()
        self._wrong_tries = 0
        self._has_owner = False

    def set_up(self, request: SetUp) -> Administrator:
        """Make the holder of the setup token the owner; the answer has the key, this once.

        Raises:
            ConflictError: there is an owner already.
            RateLimitExceededError: ten wrong tokens were tried since the start.
            AuthenticationError: the token is wrong, or its 24 hours are over.
        """
        # One at a time, so that parallel guesses are counted before the next is compared. What
        # is settled is answered without the database: anybody can knock here, for ever.
        with self._lock:
            self._check_open()
            with writing(self._engine) as connection:
                self._has_owner = bool(_owners(connection))
                self._check_open()
                pending = self._proved(connection, request.token)
                now = timestamp()
                connection.execute(
                    update(principals)
                    .where(principals.c.id == pending)
                    .values(name=request.name, role="owner", created_at=now)
                )
                key = self._accounts.issue(connection, [pending], "tsk", now)[0]
        identity = self._accounts.identity(self._accounts.authenticate(key))
        return Administrator(identity=identity, api_key=key)

    def _check_open(self) -> None:
        if self._has_owner:
            raise ConflictError(
                "This platform has its administrator, so sign in with an API key; if it is lost, "
                "start the platform once with --reset-administrator."
            )
        if self._wrong_tries >= _TRIES:
            raise RateLimitExceededError(
                f"{_TRIES} wrong setup tokens were tried; restart the platform, and its "
                "terminal shows a new one."
            )

    def _proved(self, connection: Connection, token: str) -> str:
        """The pending administrator whom the token proves."""
        waiting = _waiting(connection)
        expected = "" if waiting is None else waiting.token_sha256
        if waiting is None or not hmac.compare_digest(digest(token), expected):
            self._wrong_tries += 1
            raise AuthenticationError(
                "This is not the platform's setup token; take the newest one from its terminal."
            )
        if datetime.now(UTC) - datetime.fromisoformat(waiting.issued_at) > _VALID:
            raise AuthenticationError(
                "The setup token's 24 hours are over; restart the platform, and its terminal "
                "shows a new one."
            )
        return waiting.id


class _Owner(NamedTuple):
    id: str
    name: str


def _owners(connection: Connection) -> list[_Owner]:
    """Who can sign in as administrator."""
    keys = select(credentials.c.principal_id).where(credentials.c.revoked_at.is_(None))
    query = select(principals.c.id, principals.c.name).where(
        principals.c.role == "owner", principals.c.id.in_(keys)
    )
    return [_Owner(*row) for row in connection.execute(query.order_by(principals.c.id))]


class _Waiting(NamedTuple):
    id: str
    token_sha256: str
    issued_at: str


def _waiting(connection: Connection) -> _Waiting | None:
    """Who waits to become the administrator, with the token that is valid now."""
    query = (
        select(principals.c.id, credentials.c.token_sha256, credentials.c.created_at)
        .join(credentials, credentials.c.principal_id == principals.c.id)
        .where(principals.c.role == PENDING, credentials.c.revoked_at.is_(None))
    )
    found = connection.execute(query).one_or_none()
    return None if found is None else _Waiting(*found)
