"""What all tables share: their metadata, and the lengths of texts."""

from __future__ import annotations

from sqlalchemy import MetaData, String

__all__ = ["ID", "INSTANT", "NAME", "SHA256", "metadata"]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ID = String(48)
NAME = String(255)
INSTANT = String(32)
SHA256 = String(64)
