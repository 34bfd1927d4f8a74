"""The log of predictions: a file beside the control state, of the process that answers them.

It is a SQLite file wherever the control state is, because a line a prediction is no business of
a team's database server, and the one process that serves an organisation is all that writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    case,
    delete,
    func,
    literal_column,
    select,
)

from .engine import open_engine, reading, writing

__all__ = ["PredictionStore", "predictions"]

_metadata = MetaData()

#: one answered request; ``name`` is the deployment or the version that was asked, ``answers`` and
#: ``data`` are None unless the deployment's owner has them kept
predictions = Table(
    "predictions",
    _metadata,
    Column("id", String(48), primary_key=True),
    Column("organisation_id", String(48), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("name", String(255), nullable=False),
    Column("model", String(255), nullable=False),
    Column("version", Integer, nullable=False),
    Column("caller", String(300), nullable=False),
    Column("status", Integer, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("latency_ms", Float, nullable=False),
    Column("answers", JSON(none_as_null=True)),
    Column("data", JSON(none_as_null=True)),
)
Index(
    "ix_predictions_page",
    predictions.c.organisation_id,
    predictions.c.created_at,
    predictions.c.id,
)
Index(
    "ix_predictions_name",
    predictions.c.organisation_id,
    predictions.c.name,
    predictions.c.created_at,
)

_NAMES = [column.name for column in predictions.columns]
_INSERT = (
    f"INSERT OR IGNORE INTO predictions ({', '.join(_NAMES)}) "  # noqa: S608
    f"VALUES ({', '.join(f':{name}' for name in _NAMES)})"
)
_ROWID = literal_column("rowid", Integer)

#: rows of one transaction, between which others get their turn
_PIECE = 2000


class PredictionStore:
    """The file, opened; ``engine`` is for reading pages."""

    def __init__(self, path: Path) -> None:
        self.engine: Engine = open_engine(f"sqlite:///{path}")
        with writing(self.engine) as connection:
            _metadata.create_all(connection)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep rows durably; one that is there already stays as it is.

        Args:
            rows: every column by its name, ``answers`` and ``data`` as JSON texts or None.
        """
        for start in range(0, len(rows), _PIECE):
            with writing(self.engine) as connection:
                # The driver's own way: SQLAlchemy would look at every value of every row.
                connection.exec_driver_sql(_INSERT, rows[start : start + _PIECE])

    def prune(self, before: str) -> int:
        """Remove what is older than an instant; how many rows that were."""
        removed = 0
        # In the order in which they were kept, which is that of their age to within a second:
        # no index is kept up to date for this.
        oldest = select(_ROWID).select_from(predictions).order_by(_ROWID).limit(_PIECE)
        old = (predictions.c.created_at < before, _ROWID.in_(oldest))
        while True:
            with writing(self.engine) as connection:
                count = connection.execute(delete(predictions).where(*old)).rowcount
            removed += count
            if count < _PIECE:
                return removed

    def find(self, organisation_id: str, id: str) -> Row[Any] | None:
        """One prediction; None if the organisation has none of that id."""
        query = select(predictions).where(
            predictions.c.organisation_id == organisation_id, predictions.c.id == id
        )
        with reading(self.engine) as connection:
            return connection.execute(query).one_or_none()

    def since(self, organisation_id: str, name: str, instant: str) -> Row[Any]:
        """Requests, failed ones and rows since an instant."""
        failed = func.sum(case((predictions.c.status >= 400, 1), else_=0))
        query = select(
            func.count().label("requests"),
            func.coalesce(failed, 0).label("failed"),
            func.coalesce(func.sum(predictions.c.rows), 0).label("rows"),
        ).where(*_named(organisation_id, name, instant))
        with reading(self.engine) as connection:
            return connection.execute(query).one()

    def per_minute(self, organisation_id: str, name: str, instant: str) -> dict[str, int]:
        """Minute (``2026-01-31T23:59``) -> requests, since an instant."""
        minute = func.substr(predictions.c.created_at, 1, 16)
        query = (
            select(minute, func.count())
            .where(*_named(organisation_id, name, instant))
            .group_by(minute)
        )
        with reading(self.engine) as connection:
            return {str(row[0]): int(row[1]) for row in connection.execute(query)}

    def latencies(self, organisation_id: str, name: str, instant: str, most: int) -> list[float]:
        """Of the newest answers since an instant, in milliseconds."""
        query = (
            select(predictions.c.latency_ms)
            .where(*_named(organisation_id, name, instant), predictions.c.status < 400)
            .order_by(predictions.c.created_at.desc())
            .limit(most)
        )
        with reading(self.engine) as connection:
            return list(connection.execute(query).scalars())

    def close(self) -> None:
        """Close the file."""
        self.engine.dispose()


def _named(organisation_id: str, name: str, instant: str) -> tuple[ColumnElement[bool], ...]:
    return (
        predictions.c.organisation_id == organisation_id,
        predictions.c.name == name,
        predictions.c.created_at >= instant,
    )
