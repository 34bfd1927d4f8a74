"""The database's history. ``upgrade`` brings an older one up to date and refuses a newer one."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import (
    Column,
    Engine,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    insert,
    inspect,
    select,
)

from truststram_lab.exceptions import ConfigurationError
from truststram_lab.server.stores.engine import reading
from truststram_lab.server.stores.tables import metadata

__all__ = ["REVISIONS", "upgrade"]

#: every revision of the schema, oldest first; the last is what ``tables`` describes
REVISIONS = ("0001", "0002", "0003", "0007", "0008")

#: Alembic's own table
_VERSION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def upgrade(engine: Engine, version: str) -> None:
    """Bring the database to the newest revision.

    Args:
        version: of this package, for the message.

    Raises:
        ConfigurationError: the database was made by a newer package; nothing is changed.
    """
    with reading(engine) as connection:
        tables = set(inspect(connection).get_table_names())
        current: str | None = None
        if _VERSION.name in tables:
            current = connection.execute(select(_VERSION.c.version_num)).scalar_one_or_none()
    if current == REVISIONS[-1]:
        return
    if current is not None and current not in REVISIONS:
        raise ConfigurationError(
            f"The platform's database is at revision {current!r}, but truststram-lab {version} "
            f"knows only up to {REVISIONS[-1]!r}; upgrade the package, or point TRUSTSTRAM_HOME "
            "at another folder."
        )
    if tables:
        _migrate(engine)
    else:
        _create(engine)


def _create(engine: Engine) -> None:
    """An empty database gets the newest tables at once, without a second of loading Alembic."""
    with engine.begin() as connection:
        metadata.create_all(connection)
        _VERSION.create(connection)
        connection.execute(insert(_VERSION).values(version_num=REVISIONS[-1]))


def _migrate(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
