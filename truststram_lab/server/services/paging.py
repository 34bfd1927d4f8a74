"""Pages by key: a listing that grows while it is read neither skips nor repeats."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, and_, func, or_

from truststram_lab.exceptions import InvalidInputError

__all__ = ["page"]


def page(
    connection: Connection,
    query: Select[Any],
    table: Table,
    *,
    limit: int,
    cursor: str | None,
    search: str | None = None,
) -> tuple[Sequence[Row[Any]], str | None]:
    """The rows of one page, newest first, and the next page's cursor (None on the last).

    Args:
        query: selects from ``table``, which has created_at, id and name.
        limit: rows a page, 1 or more.
        cursor: what the former page gave; opaque.
        search: part of the name, in any case.

    Raises:
        InvalidInputError: the cursor is not one of ours.
    """
    if search:
        query = query.where(func.lower(table.c.name).contains(search.lower(), autoescape=True))
    if cursor:
        instant, key = _read(cursor)
        query = query.where(
            or_(
                table.c.created_at < instant,
                and_(table.c.created_at == instant, table.c.id < key),
            )
        )
    ordered = query.order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit + 1)
    rows = connection.execute(ordered).all()
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    text = json.dumps([last.created_at, last.id])
    return rows[:limit], base64.urlsafe_b64encode(text.encode()).decode()


def _read(cursor: str) -> tuple[str, str]:
    try:
        instant, key = json.loads(base64.urlsafe_b64decode(cursor.encode()))
    except (ValueError, TypeError, binascii.Error) as error:
        raise InvalidInputError(
            f"{cursor[:80]!r} is not a cursor of this listing; leave it out to start anew.",
            field="cursor",
        ) from error
    return str(instant), str(key)
