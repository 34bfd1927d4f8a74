"""Which of this computer's data sets took part in which federation; it never leaves.

    TRUSTSTRAM_HOME/ledger/federations/<platform>/<federation>.json

A ledger is the data set's and knows no federation; this says which ledgers to look at for one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from truststram_lab import config
from truststram_lab.exceptions import ConfigurationError

from .participation.files import folder_name, private_folder, write_whole

__all__ = ["JoinedData", "federations_at", "joined_data", "note_joined"]


@dataclass(frozen=True)
class JoinedData:
    """A data set that took part: its fingerprint, and its rows, held out ones included."""

    sha256: str
    rows: int


def note_joined(place: str, federation: str, data: JoinedData) -> None:
    """Remember that ``data`` takes part in ``federation`` on the platform ``place``."""
    known = joined_data(place, federation)
    if data in known:
        return
    path = _path(place, federation)
    private_folder(path.parent)
    told = [{"sha256": one.sha256, "rows": one.rows} for one in [*known, data]]
    write_whole(path, json.dumps({"federation": federation, "data": told}).encode())


def joined_data(place: str, federation: str) -> list[JoinedData]:
    """What took part from this computer, oldest first; empty where nothing did.

    Raises:
        ConfigurationError: the file is damaged.
    """
    path = _path(place, federation)
    return _read(path)[1] if path.exists() else []


def federations_at(place: str) -> list[str]:
    """The federations on this platform that a data set of this computer took part in."""
    return [_read(path)[0] for path in sorted(_folder(place).glob("*.json"))]


def _read(path: Path) -> tuple[str, list[JoinedData]]:
    try:
        found = json.loads(path.read_bytes())
        data = [JoinedData(str(one["sha256"]), int(one["rows"])) for one in found["data"]]
        return str(found["federation"]), data
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(
            f"{path} is damaged; remove it, and join the federation again to have it written anew."
        ) from None


def _folder(place: str) -> Path:
    return config.home() / "ledger" / "federations" / folder_name(place)


def _path(place: str, federation: str) -> Path:
    return _folder(place) / f"{folder_name(federation)}.json"
