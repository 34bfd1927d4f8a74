"""Organisations, principals, and the tokens they prove themselves with."""

from __future__ import annotations

import getpass
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, insert, select, update

from truststram_lab.exceptions import AuthenticationError
from truststram_lab.schemas.accounts import Identity, Role
from truststram_lab.schemas.base import PROTOCOL
from truststram_lab.server.settings import Settings
from truststram_lab.server.stores import outbox
from truststram_lab.server.stores.engine import reading, writing
from truststram_lab.server.stores.ids import new_id, timestamp
from truststram_lab.server.stores.tables import credentials, organisations, principals

__all__ = [
    "PENDING",
    "ROLE_SCOPES",
    "AccountsService",
    "Principal",
    "digest",
    "ensure_organisation",
    "revoke",
]

DEFAULT_ORGANISATION = "default"

_READS = frozenset(
    {
        "identity:read",
        "models:read",
        "deployments:read",
        "predictions:read",
        "federations:read",
        "runs:read",
        "events:read",
        "privacy:read",
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
    "site": frozenset({"identity:read", "training:participate", "privacy:read"}),
}

#: seconds for which an accepted token is not looked up again
_TRUSTED_S = 5.0

#: what opens a door by itself; bootstrap and refresh tokens are only exchanged
_BEARERS = ("api_key", "access")

#: role of whoever holds the setup token, before they are the owner; it opens no door
PENDING = "setup"


@dataclass(frozen=True)
class Principal:
    """Who is asking."""

    id: str
    organisation_id: str
    organisation: str
    name: str
    role: Role
    #: what the credential is narrowed to; None is all that the role allows
    granted: frozenset[str] | None = None

    @property
    def scopes(self) -> frozenset[str]:
        """What the role allows, and the credential carries."""
        allowed = ROLE_SCOPES[self.role]
        return allowed if self.granted is None else allowed & self.granted

    @property
    def label(self) -> str:
        """For the log, such as ``site:breast-cancer/site 1``."""
        return f"{self.role}:{self.name}"


class AccountsService:
    """Who is who, and with which token."""

    def __init__(
        self, engine: Engine, settings: Settings, clock: Callable[[], float] = time.time
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._trusted: dict[str, tuple[Principal, float]] = {}
        self._generation = 0

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
                        credentials.c.token_sha256 == digest(known_key),
                        credentials.c.principal_id == owner_id,
                        credentials.c.revoked_at.is_(None),
                    )
                ).one_or_none()
                if valid is not None:
                    return known_key
            key = self.issue(connection, [owner_id], "tsk", now)[0]
        self.forget()
        return key

    @staticmethod
    def _ensure_owner_row(connection: Connection, now: str) -> str:
        organisation_id = ensure_organisation(connection, now)
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
            revoke(connection, principal_ids[start : start + 500], keep, now)
        connection.execute(
            insert(credentials),
            [
                {
                    "id": new_id("crd"),
                    "principal_id": principal_id,
                    "token_sha256": digest(token),
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
        found = self._trusted.get(digest(token))
        if found is None or found[1] < time.monotonic():
            return None
        return found[0]

    def authenticate(self, token: str) -> Principal:
        """The principal that a token proves.

        Raises:
            AuthenticationError: nobody has this token, or not any more.
        """
        generation = self._generation
        sha256 = digest(token)
        query = (
            select(
                principals.c.id,
                principals.c.organisation_id,
                organisations.c.name.label("organisation"),
                principals.c.name,
                principals.c.role,
                credentials.c.scopes,
                credentials.c.expires_at_s,
            )
            .join(credentials, credentials.c.principal_id == principals.c.id)
            .join(organisations, organisations.c.id == principals.c.organisation_id)
            .where(credentials.c.token_sha256 == sha256, credentials.c.revoked_at.is_(None))
            .where(principals.c.role != PENDING, credentials.c.kind.in_(_BEARERS))
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise AuthenticationError(
                "The platform does not know this token, or it was replaced; sign in again."
            )
        trusted_s = _TRUSTED_S
        if row.expires_at_s is not None:
            left_s = row.expires_at_s - self._clock()
            if left_s <= 0:
                raise AuthenticationError("The token has expired; refresh it, or sign in again.")
            trusted_s = min(trusted_s, left_s)
        principal = Principal(
            id=row.id,
            organisation_id=row.organisation_id,
            organisation=row.organisation,
            name=row.name,
            role=row.role,
            granted=None if row.scopes is None else frozenset(row.scopes),
        )
        with self._lock:
            # A token that was replaced while we looked must not be trusted for a moment more.
            if generation == self._generation:
                if len(self._trusted) > 50_000:
                    self._trusted.clear()
                self._trusted[sha256] = principal, time.monotonic() + trusted_s
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


def ensure_organisation(connection: Connection, now: str) -> str:
    """The id of the platform's organisation, made if there is none."""
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


def digest(token: str) -> str:
    """What is stored of a token: its SHA-256, in hexadecimal."""
    # Tokens carry 256 random bits, so a plain hash cannot be searched backwards.
    return hashlib.sha256(token.encode()).hexdigest()


def _login_name() -> str:
    try:
        return getpass.getuser()[:100]
    except (OSError, KeyError):  # an account without a name, as in some containers
        return "owner"


def revoke(connection: Connection, principal_ids: Sequence[str], keep: int, now: str) -> None:
    """Revoke the principals' credentials, but for the newest ``keep`` keys of each.

    Where keys are kept, the tokens of devices go on, too.
    """
    kinds = (credentials.c.kind == "api_key",) if keep else ()
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
            *kinds,
        )
        .subquery()
    )
    connection.execute(
        update(credentials)
        .where(credentials.c.id.in_(select(valid.c.id).where(valid.c.age > keep)))
        .values(revoked_at=now)
    )
