"""Federations, the credentials of their sites, and the devices that register."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, or_, select, update

from truststram_lab.exceptions import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    nearest,
)
from truststram_lab.schemas.accounts import Device, DeviceRegistration
from truststram_lab.schemas.base import Page
from truststram_lab.schemas.federation import CreateFederation, Federation, Invitation, Invite
from truststram_lab.server.settings import Settings
from truststram_lab.server.stores import outbox
from truststram_lab.server.stores.engine import reading, writing
from truststram_lab.server.stores.ids import new_id, timestamp
from truststram_lab.server.stores.tables import devices, federations, participants, principals

from .accounts import AccountsService, Principal
from .paging import page

__all__ = ["FederationService", "find_federation"]

_NAME_LIMIT = 100

#: Former credentials of a site that go on working when an invitation keeps them.
_KEPT_CREDENTIALS = 7


class FederationService:
    """Who trains together."""

    def __init__(self, engine: Engine, accounts: AccountsService, settings: Settings) -> None:
        self._engine = engine
        self._accounts = accounts
        self._settings = settings

    def list_federations(
        self, organisation_id: str, *, limit: int, cursor: str | None, search: str | None
    ) -> Page[Federation]:
        """The federations, newest first."""
        query = select(federations).where(federations.c.organisation_id == organisation_id)
        with reading(self._engine) as connection:
            rows, following = page(
                connection, query, federations, limit=limit, cursor=cursor, search=search
            )
            items = [_view(connection, row) for row in rows]
        return Page[Federation](items=items, next_cursor=following)

    def get_or_create(self, organisation_id: str, request: CreateFederation) -> Federation:
        """The federation of that name, made if there is none."""
        now = timestamp()
        with writing(self._engine) as connection:
            row = connection.execute(
                select(federations).where(
                    federations.c.organisation_id == organisation_id,
                    federations.c.name == request.name,
                )
            ).one_or_none()
            if row is None:
                row = connection.execute(
                    insert(federations)
                    .values(
                        id=new_id("fed"),
                        organisation_id=organisation_id,
                        name=request.name,
                        description=request.description or None,
                        created_at=now,
                    )
                    .returning(federations)
                ).one()
                _tell(connection, row, "federation.created", now)
            return _view(connection, row)

    def get(self, organisation_id: str, ref: str) -> Federation:
        """The federation of that name or id; NotFoundError has the nearest names."""
        with reading(self._engine) as connection:
            return _view(connection, find_federation(connection, organisation_id, ref))

    def set_open(self, organisation_id: str, ref: str, *, is_open: bool) -> Federation:
        """Open the federation, or close it to new runs and participants; again changes nothing.

        Runs in progress go on.
        """
        now = timestamp()
        with writing(self._engine) as connection:
            row = find_federation(connection, organisation_id, ref)
            if (row.closed_at is None) != is_open:
                connection.execute(
                    update(federations)
                    .where(federations.c.id == row.id)
                    .values(closed_at=None if is_open else now)
                )
                _tell(connection, row, "federation.changed", now)
            return _view(connection, find_federation(connection, organisation_id, row.id))

    def invite(self, organisation_id: str, ref: str, request: Invite) -> list[Invitation]:
        """A credential for each participant, in the order asked for.

        Former ones stop working, or all but the newest few when the request keeps them.

        Raises:
            InvalidInputError: a name is empty, too long, not printable, or comes twice.
            NotFoundError: no such federation.
            ConflictError: the federation is closed, and a name is new.
        """
        names = request.participants
        _check_names(names)
        now = timestamp()
        with writing(self._engine) as connection:
            federation = find_federation(connection, organisation_id, ref)
            known = {
                row.name: row.principal_id
                for row in connection.execute(
                    select(participants.c.name, participants.c.principal_id).where(
                        participants.c.federation_id == federation.id
                    )
                )
            }
            fresh = {name: new_id("sit") for name in names if name not in known}
            if fresh and federation.closed_at is not None:
                raise ConflictError(
                    f"Federation {federation.name} is closed, so {next(iter(fresh))!r} cannot "
                    "enter; open it again first."
                )
            _insert_participants(connection, federation, fresh, now)
            known |= fresh
            tokens = self._accounts.issue(
                connection,
                [known[name] for name in names],
                "tss",
                now,
                keep=_KEPT_CREDENTIALS if request.keep else 0,
            )
        self._accounts.forget()
        return [
            Invitation(participant=name, token=token)
            for name, token in zip(names, tokens, strict=True)
        ]

    def require_member(self, principal: Principal, ref: str) -> None:
        """Refuse a site that is no participant of the federation.

        Raises:
            NotFoundError: it has no participant of that identity; others stay unknown to it.
        """
        query = (
            select(federations.c.name)
            .join(participants, participants.c.federation_id == federations.c.id)
            .where(
                participants.c.principal_id == principal.id,
                or_(federations.c.name == ref, federations.c.id == ref),
            )
        )
        with reading(self._engine) as connection:
            if connection.execute(query).first() is None:
                raise NotFoundError(
                    f"This site takes part in no federation {ref!r}; ask for its own.", name=ref
                )

    def register(self, principal: Principal, request: DeviceRegistration) -> Device:
        """The device of this site with that identifier, made if there is none.

        A sandbox is one user's: whatever organisation a device names, it means that user's.

        Raises:
            PermissionDeniedError: a standing platform's credential is of another organisation.
        """
        own = (principal.organisation, principal.organisation_id)
        if self._settings.standing and request.org_id not in own:
            raise PermissionDeniedError(
                f"This credential belongs to organisation {principal.organisation!r}, not "
                f"{request.org_id!r}; set org_id to {principal.organisation!r}."
            )
        with writing(self._engine) as connection:
            row = connection.execute(
                select(devices).where(
                    devices.c.principal_id == principal.id,
                    devices.c.device_identifier == request.device_identifier,
                )
            ).one_or_none()
            if row is None:
                row = connection.execute(
                    insert(devices)
                    .values(
                        id=new_id("dev"),
                        organisation_id=principal.organisation_id,
                        principal_id=principal.id,
                        device_identifier=request.device_identifier,
                        # for people to read, never compared: a long text is cut
                        platform=request.platform[:_NAME_LIMIT],
                        os_version=request.os_version[:_NAME_LIMIT],
                        status="active",
                        created_at=timestamp(),
                    )
                    .returning(devices)
                ).one()
        return Device(
            id=row.id,
            device_identifier=row.device_identifier,
            org_id=principal.organisation,
            platform=row.platform,
            status=row.status,
            created_at=row.created_at,
        )


def find_federation(connection: Connection, organisation_id: str, ref: str) -> Row[Any]:
    """The row of the federation of that name or id; NotFoundError has the nearest names."""
    row = connection.execute(
        select(federations).where(
            federations.c.organisation_id == organisation_id,
            or_(federations.c.name == ref, federations.c.id == ref),
        )
    ).one_or_none()
    if row is not None:
        return row
    names = connection.execute(
        select(federations.c.name).where(federations.c.organisation_id == organisation_id)
    ).scalars()
    close = nearest(ref, list(names))
    hint = f"did you mean {close[0]!r}?" if close else "POST /api/v1/federations makes one."
    raise NotFoundError(f"There is no federation {ref!r}; {hint}", name=ref, choices=close)


def _check_names(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not (0 < len(name) <= _NAME_LIMIT and name.isprintable() and name == name.strip()):
            raise InvalidInputError(
                f"{name[:_NAME_LIMIT]!r} is not a participant's name; take 1 to {_NAME_LIMIT} "
                "printable characters without spaces at the ends.",
                field="participants",
            )
        if name in seen:
            raise InvalidInputError(
                f"Participant {name!r} comes twice; name everybody once.", field="participants"
            )
        seen.add(name)


def _insert_participants(
    connection: Connection, federation: Row[Any], fresh: dict[str, str], now: str
) -> None:
    if not fresh:
        return
    connection.execute(
        insert(principals),
        [
            {
                "id": principal_id,
                "organisation_id": federation.organisation_id,
                "name": f"{federation.name}/{name}",
                "role": "site",
                "created_at": now,
            }
            for name, principal_id in fresh.items()
        ],
    )
    connection.execute(
        insert(participants),
        [
            {
                "federation_id": federation.id,
                "principal_id": principal_id,
                "name": name,
                "created_at": now,
            }
            for name, principal_id in fresh.items()
        ],
    )
    _tell(connection, federation, "federation.changed", now)


def _tell(connection: Connection, federation: Row[Any], kind: str, now: str) -> None:
    outbox.append(
        connection,
        federation.organisation_id,
        outbox.ORGANISATION_STREAM,
        kind,
        {"federation": federation.name, "federation_id": federation.id},
        now,
    )


def _view(connection: Connection, row: Row[Any]) -> Federation:
    names = connection.execute(
        select(participants.c.name)
        .where(participants.c.federation_id == row.id)
        .order_by(participants.c.created_at, participants.c.principal_id)
    ).scalars()
    return Federation(
        id=row.id,
        name=row.name,
        participants=list(names),
        created_at=row.created_at,
        description=row.description or "",
        status="open" if row.closed_at is None else "closed",
    )
