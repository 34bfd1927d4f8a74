"""Organisations, principals, and the tokens they prove themselves with."""

from __future__ import annotations

import getpass
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, Engine, func, insert, select, update

from truststram_lab.exceptions import AuthenticationError, ConflictError, RateLimitExceededError
from truststram_lab.schemas.accounts import Identity, Role
from truststram_lab.schemas.base import PROTOCOL
from truststram_lab.schemas.setup import Administrator, SetUp
from truststram_lab.server.settings import Settings
from truststram_lab.server.stores import outbox
from truststram_lab.server.stores.engine import reading, writing
from truststram_lab.server.stores.ids import new_id, timestamp
from truststram_lab.server.stores.tables import credentials, organisations, principals

__all__ = ["ROLE_SCOPES", "AccountsService", "Principal"]

DEFAULT_ORGANISATION = "default"

_READS = frozenset(
    {
        "identity:read",
        "models:read",
        "deployments:read",
        "federations:read",
        "runs:read",
        "events:read",
    }
)
_WORK = frozenset(
    {
        "blobs:read",
        "blobs:write",
        "models:write",
        "deployments:write",
        "predictions:write",
        "federations:write",
        "runs:write",
    }
)

#: what each role may do; ``platform:administer`` is every door that no rule names
ROLE_SCOPES: dict[Role, frozenset[str]] = {
    "owner": _READS | _WORK | {"platform:administer"},
    "member": _READS | _WORK,
    "observer": _READS,
    "site": frozenset({"identity:read", "training:participate"}),
}

#: seconds for which an accepted token is not looked up again
_TRUSTED_S = 5.0

#: role of whoever holds the setup token, before they are the owner; it opens no door
_PENDING = "setup"

_SETUP_VALID = timedelta(hours=24)
_SETUP_TRIES = 10


@dataclass(frozen=True)
class Principal:
    """Who is asking."""

    id: str
    organisation_id: str
    organisation: str
    name: str
    role: Role

    @property
    def scopes(self) -> frozenset[str]:
        """What the role allows."""
        return ROLE_SCOPES[self.role]

    @property
    def label(self) -> str:
        """For the log, such as ``site:breast-cancer/site 1``."""
        return f"{self.role}:{self.name}"


class AccountsService:
    """Who is who, and with which token."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._lock = threading.Lock()
        self._trusted: dict[str, tuple[Principal, float]] = {}
        self._generation = 0
        self._setup = threading.Lock()
        self._wrong_tries = 0
        self._has_owner = False

    def ensure_owner(self, known_key: str | None) -> str:
        """The owner's API key: ``known_key`` if it is still valid, else a new one.

        A new key replaces the former ones. Creates the organisation and its owner at the
        first start.
        """
        now = timestamp()
        with writing(self._engine) as connection:
            owner_id = self._ensure_owner_row(connection, now)
            if known_key is not None:
                valid = connection.execute(
                    select(credentials.c.id).where(
                        credentials.c.token_sha256 == _digest(known_key),
                        credentials.c.principal_id == owner_id,
                        credentials.c.revoked_at.is_(None),
                    )
                ).one_or_none()
                if valid is not None:
                    return known_key
            key = self.issue(connection, [owner_id], "tsk", now)[0]
        self.forget()
        return key

    def setup_token(self) -> str | None:
        """A new token for the first administrator, replacing the former; None if there is one.

        It serves once, within 24 hours; only its hash is stored.
        """
        now = timestamp()
        with writing(self._engine) as connection:
            if _owner(connection) is not None:
                return None
            organisation_id = self._ensure_organisation(connection, now)
            pending = _waiting(connection)
            pending_id = new_id("usr") if pending is None else pending.id
            if pending is None:
                connection.execute(
                    insert(principals).values(
                        id=pending_id,
                        organisation_id=organisation_id,
                        name="first administrator",
                        role=_PENDING,
                        created_at=now,
                    )
                )
            return self.issue(connection, [pending_id], "tsk_setup", now)[0]

    def set_up(self, request: SetUp) -> Administrator:
        """Make the holder of the setup token the owner; the answer has the key, this once.

        Raises:
            ConflictError: there is an owner already.
            RateLimitExceededError: ten wrong tokens were tried since the start.
            AuthenticationError: the token is wrong, or its 24 hours are over.
        """
        # One at a time, so that parallel guesses are counted before the next is compared. What
        # is settled is answered without the database: anybody can knock here, for ever.
        with self._setup:
            self._check_setup_open()
            with writing(self._engine) as connection:
                self._has_owner = _owner(connection) is not None
                self._check_setup_open()
                pending = self._proved(connection, request.token)
                now = timestamp()
                connection.execute(
                    update(principals)
                    .where(principals.c.id == pending)
                    .values(name=request.name, role="owner", created_at=now)
                )
                key = self.issue(connection, [pending], "tsk", now)[0]
        return Administrator(identity=self.identity(self.authenticate(key)), api_key=key)

    def _check_setup_open(self) -> None:
        if self._has_owner:
            raise ConflictError(
                "This platform has its administrator; the setup token served once, so sign "
                "in with an API key."
            )
        if self._wrong_tries >= _SETUP_TRIES:
            raise RateLimitExceededError(
                f"{_SETUP_TRIES} wrong setup tokens were tried; restart the platform, and its "
                "terminal shows a new one."
            )

    def _proved(self, connection: Connection, token: str) -> str:
        """The pending administrator whom the token proves."""
        waiting = _waiting(connection)
        expected = "" if waiting is None else waiting.token_sha256
        if waiting is None or not hmac.compare_digest(_digest(token), expected):
            self._wrong_tries += 1
            raise AuthenticationError(
                "This is not the platform's setup token; take the newest one from its terminal."
            )
        if datetime.now(UTC) - datetime.fromisoformat(waiting.issued_at) > _SETUP_VALID:
            raise AuthenticationError(
                "The setup token's 24 hours are over; restart the platform, and its terminal "
                "shows a new one."
            )
        return waiting.id

    @classmethod
    def _ensure_owner_row(cls, connection: Connection, now: str) -> str:
        organisation_id = cls._ensure_organisation(connection, now)
        owner_id = connection.execute(
            select(principals.c.id).where(
                principals.c.organisation_id == organisation_id, principals.c.role == "owner"
            )
        ).scalar()
        if owner_id is None:
            owner_id = new_id("usr")
            connection.execute(
                insert(principals).values(
                    id=owner_id,
                    organisation_id=organisation_id,
                    name=_login_name(),
                    role="owner",
                    created_at=now,
                )
            )
        return str(owner_id)

    @staticmethod
    def _ensure_organisation(connection: Connection, now: str) -> str:
        organisation_id = connection.execute(
            select(organisations.c.id).where(organisations.c.name == DEFAULT_ORGANISATION)
        ).scalar_one_or_none()
        if organisation_id is None:
            organisation_id = new_id("org")
            connection.execute(
                insert(organisations).values(
                    id=organisation_id, name=DEFAULT_ORGANISATION, created_at=now
                )
            )
            outbox.append(
                connection,
                organisation_id,
                outbox.ORGANISATION_STREAM,
                "organisation.created",
                {"organisation": DEFAULT_ORGANISATION},
                now,
            )
        return str(organisation_id)

    @staticmethod
    def issue(
        connection: Connection,
        principal_ids: Sequence[str],
        prefix: str,
        now: str,
        *,
        keep: int = 0,
    ) -> list[str]:
        """A new token for each principal, in order; of the former ones the newest ``keep`` stay.

        Call ``forget`` after the commit.
        """
        tokens = [f"{prefix}_{secrets.token_urlsafe(32)}" for _ in principal_ids]
        for start in range(0, len(principal_ids), 500):
            _revoke(connection, principal_ids[start : start + 500], keep, now)
        connection.execute(
            insert(credentials),
            [
                {
                    "id": new_id("crd"),
                    "principal_id": principal_id,
                    "token_sha256": _digest(token),
                    "created_at": now,
                }
                for principal_id, token in zip(principal_ids, tokens, strict=True)
            ],
        )
        return tokens

    def forget(self) -> None:
        """Look every token up again: some were replaced."""
        with self._lock:
            self._generation += 1
            self._trusted.clear()

    def trusted(self, token: str) -> Principal | None:
        """The principal of a token that was checked a moment ago, without the database."""
        found = self._trusted.get(_digest(token))
        if found is None or found[1] < time.monotonic():
            return None
        return found[0]

    def authenticate(self, token: str) -> Principal:
        """The principal that a token proves.

        Raises:
            AuthenticationError: nobody has this token, or not any more.
        """
        generation = self._generation
        digest = _digest(token)
        query = (
            select(
                principals.c.id,
                principals.c.organisation_id,
                organisations.c.name.label("organisation"),
                principals.c.name,
                principals.c.role,
            )
            .join(credentials, credentials.c.principal_id == principals.c.id)
            .join(organisations, organisations.c.id == principals.c.organisation_id)
            .where(credentials.c.token_sha256 == digest, credentials.c.revoked_at.is_(None))
            .where(principals.c.role != _PENDING)
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise AuthenticationError(
                "The platform does not know this token, or it was replaced; sign in again."
            )
        principal = Principal(**row._mapping)
        with self._lock:
            # A token that was replaced while we looked must not be trusted for a moment more.
            if generation == self._generation:
                if len(self._trusted) > 50_000:
                    self._trusted.clear()
                self._trusted[digest] = principal, time.monotonic() + _TRUSTED_S
        return principal

    def identity(self, principal: Principal) -> Identity:
        """The caller and the platform, as the caller may see them."""
        return Identity(
            organisation=principal.organisation,
            organisation_id=principal.organisation_id,
            name=principal.name,
            principal_id=principal.id,
            role=principal.role,
            environment=self._settings.environment,
            platform_version=self._settings.version,
            protocol=PROTOCOL,
        )


def _digest(token: str) -> str:
    # Tokens carry 256 random bits, so a plain hash cannot be searched backwards.
    return hashlib.sha256(token.encode()).hexdigest()


def _owner(connection: Connection) -> str | None:
    """Any administrator of the platform."""
    found = connection.execute(select(principals.c.id).where(principals.c.role == "owner"))
    return found.scalars().first()


class _Waiting(NamedTuple):
    id: str
    token_sha256: str
    issued_at: str


def _waiting(connection: Connection) -> _Waiting | None:
    """Who waits to become the first administrator, with the token that is valid now."""
    query = (
        select(principals.c.id, credentials.c.token_sha256, credentials.c.created_at)
        .join(credentials, credentials.c.principal_id == principals.c.id)
        .where(principals.c.role == _PENDING, credentials.c.revoked_at.is_(None))
    )
    found = connection.execute(query).one_or_none()
    return None if found is None else _Waiting(*found)


def _login_name() -> str:
    try:
        return getpass.getuser()[:100]
    except (OSError, KeyError):  # an account without a name, as in some containers
        return "owner"


def _revoke(connection: Connection, principal_ids: Sequence[str], keep: int, now: str) -> None:
    """Revoke the principals' credentials, but for the newest ``keep`` of each."""
    age = (
        func.row_number()
        .over(
            partition_by=credentials.c.principal_id,
            order_by=(credentials.c.created_at.desc(), credentials.c.id.desc()),
        )
        .label("age")
    )
    valid = (
        select(credentials.c.id, age)
        .where(
            credentials.c.principal_id.in_(list(principal_ids)),
            credentials.c.revoked_at.is_(None),
        )
        .subquery()
    )
    connection.execute(
        update(credentials)
        .where(credentials.c.id.in_(select(valid.c.id).where(valid.c.age > keep)))
        .values(revoked_at=now)
    )
