"""Updates on their way out: on disk before the first byte is sent, until the receipt.

    TRUSTSTRAM_HOME/outbox/<platform>/<federation>/<site>/
        lock             who works as this site now
        <round>.update   an update without a receipt, with the state the site has after it
        sent.jsonl       every update that a receipt came for
        state/<name>     what the site keeps between rounds: residuals, control variates

Noise is drawn before an update is stored. Whatever happens afterwards, these bytes are sent and
no others: a second draw would be a second release.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from truststram_lab import config
from truststram_lab.exceptions import ConfigurationError, ConflictError
from truststram_lab.schemas.federation import RoundKind

from .files import folder_name, private_folder, remove, sync_folder, write_whole

__all__ = ["Outbox", "Parcel", "outbox_folder"]

_MAGIC = b"TSOUT001"
_DIGEST_BYTES = 32
_LENGTH_BYTES = 8
#: After the magic, the digest of all that follows it, and the header's length.
_HEADER_AT = len(_MAGIC) + _DIGEST_BYTES + _LENGTH_BYTES

#: Longer than any round waits (30 days); an older update has nobody who would take it.
_KEEP_S = 45 * 86_400


@dataclass(frozen=True)
class Parcel:
    """One round's update as it will be sent.

    Args:
        round_id: of the platform; an outbox holds one parcel a round.
        run_id: the run of the round.
        run: its name, for people.
        kind: of the round.
        number: of the round.
        body: the bytes to push.
        state: the site's own files once the update is acknowledged; None removes a file.
    """

    round_id: str
    run_id: str
    run: str
    kind: RoundKind
    number: int
    body: bytes = field(repr=False)
    state: Mapping[str, bytes | None] = field(default_factory=dict, repr=False)

    @property
    def sha256(self) -> str:
        """The digest that the platform knows the update by."""
        return hashlib.sha256(self.body).hexdigest()


def outbox_folder(platform: str, federation: str, site: str, home: Path | None = None) -> Path:
    """Where a site's outbox lies. ``platform`` keeps apart what must not be sent elsewhere:
    ``sandbox``, or the host and port of another platform."""
    root = (home or config.home()) / "outbox"
    return root / folder_name(platform) / folder_name(federation) / folder_name(site)


class Outbox:
    """The outbox of one site, held by one process at a time until ``close``.

    Args:
        folder: see ``outbox_folder``; made if it is not there.
        who: the site, for the sentence that says who holds it.

    Raises:
        ConflictError: another participant works as this site; the sentence says which.
    """

    def __init__(self, folder: Path, who: str = "this site") -> None:
        self.folder = private_folder(folder)
        self._states = private_folder(folder / "state")
        self._lock = _take(folder / "lock", who)
        self._tidy()
        self._sent = self._read_ledger()

    def put(self, parcel: Parcel) -> None:
        """Store the parcel; when this returns, it outlives the process and the power.

        Raises:
            ConflictError: the round has another update already, stored or sent.
        """
        former = self._sent.get(parcel.round_id) or self._digest(parcel.round_id)
        if former == parcel.sha256:
            return
        if former is not None:
            raise ConflictError(
                f"Round {parcel.number} of run {parcel.run} has an update already; the first one "
                "counts, and no other is made of it."
            )
        write_whole(self._path(parcel.round_id), *_packed(parcel))

    def get(self, round_id: str) -> Parcel | None:
        """The stored parcel of the round, if there is one.

        Raises:
            ConfigurationError: the file was changed after it was written.
        """
        path = self._path(round_id)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        parcel = _unpacked(content)
        if parcel is None or parcel.round_id != round_id:
            raise _damaged(path)
        return parcel

    def waiting(self) -> list[str]:
        """The rounds of the stored parcels, the oldest parcel first.

        Raises:
            ConfigurationError: as in ``get``.
        """
        found = [(path.stat().st_mtime_ns, path.stem) for path in self.folder.glob("*.update")]
        return [
            str(_header(self.folder / f"{stem}.update")["round_id"]) for _, stem in sorted(found)
        ]

    def settle(self, parcel: Parcel) -> None:
        """The receipt has come: the state counts, the ledger says so, the parcel goes.

        Doing it again, after a crash in the middle, gives the same files.
        """
        for name, content in parcel.state.items():
            if content is None:
                remove(self._state_path(name))
            else:
                write_whole(self._state_path(name), content)
        if parcel.round_id not in self._sent:
            self._note(parcel)
        remove(self._path(parcel.round_id))
        for round_id in self.waiting():
            header = _header(self._path(round_id))
            if header["run_id"] == parcel.run_id and header["number"] < parcel.number:
                # The run went on without it.
                remove(self._path(round_id))

    def drop(self, round_id: str) -> None:
        """Give the parcel up: its round takes no update any more. The state stays as it was."""
        remove(self._path(round_id))

    def is_sent(self, round_id: str) -> bool:
        """Whether a receipt for the round has come."""
        return round_id in self._sent

    def state(self, name: str) -> bytes | None:
        """A file of the site's own, as the last acknowledged round left it."""
        try:
            return self._state_path(name).read_bytes()
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """Let another participant work as this site."""
        if self._lock >= 0:
            os.close(self._lock)  # the lock falls with it
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _path(self, round_id: str) -> Path:
        return self.folder / f"{folder_name(round_id)}.update"

    def _state_path(self, name: str) -> Path:
        return self._states / folder_name(name)

    def _digest(self, round_id: str) -> str | None:
        parcel = self.get(round_id)
        return None if parcel is None else parcel.sha256

    def _tidy(self) -> None:
        for folder in (self.folder, self._states):
            for leftover in folder.glob(".*"):
                leftover.unlink()  # half a file of a process that died
        for path in self.folder.glob("*.update"):
            if time.time() - path.stat().st_mtime > _KEEP_S:
                remove(path)

    def _read_ledger(self) -> dict[str, str]:
        found: dict[str, str] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in (self.folder / "sent.jsonl").read_bytes().splitlines():
                # A line that a loss of power cut off: its parcel is still stored.
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    found[entry["round_id"]] = entry["sha256"]
        return found

    def _note(self, parcel: Parcel) -> None:
        entry = {
            "round_id": parcel.round_id,
            "run_id": parcel.run_id,
            "run": parcel.run,
            "kind": parcel.kind,
            "number": parcel.number,
            "sha256": parcel.sha256,
            "size_bytes": len(parcel.body),
            "sent_at": time.time(),
        }
        path = self.folder / "sent.jsonl"
        fresh = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            cut = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
            file.write((b"\n" if cut else b"") + json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if fresh:
            sync_folder(self.folder)
        self._sent[parcel.round_id] = parcel.sha256


def _take(path: Path, who: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 1_000).decode("utf-8", "replace")
        os.close(descriptor)
        raise ConflictError(
            f"{who[:1].upper()}{who[1:]} is taking part already, {holder or 'just started'}; "
            "stop that participant, or join under another name."
        ) from None
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    said = f"on {socket.gethostname()} in process {os.getpid()} since {since}"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, said.encode(), 0)
    return descriptor


def _packed(parcel: Parcel) -> list[bytes]:
    kept = {name: None if part is None else len(part) for name, part in parcel.state.items()}
    parts = [parcel.body, *(part for part in parcel.state.values() if part is not None)]
    header = json.dumps(
        {
            "round_id": parcel.round_id,
            "run_id": parcel.run_id,
            "run": parcel.run,
            "kind": parcel.kind,
            "number": parcel.number,
            "body": len(parcel.body),
            "state": kept,
        }
    ).encode()
    covered = [len(header).to_bytes(_LENGTH_BYTES, "little"), header, *parts]
    digest = hashlib.sha256()
    for part in covered:
        digest.update(part)
    return [_MAGIC, digest.digest(), *covered]


def _split_header(start: bytes) -> tuple[int, int] | None:
    """Where the header begins and ends, or None if these bytes are no parcel."""
    if len(start) < _HEADER_AT or not start.startswith(_MAGIC):
        return None
    length = start[_HEADER_AT - _LENGTH_BYTES : _HEADER_AT]
    return _HEADER_AT, _HEADER_AT + int.from_bytes(length, "little")


def _header(path: Path) -> dict[str, Any]:
    """The header alone: a listing does not read the updates."""
    with path.open("rb") as file:
        span = _split_header(file.read(_HEADER_AT))
        if span is None or span[1] > path.stat().st_size:
            raise _damaged(path)
        try:
            found = json.loads(file.read(span[1] - span[0]))
        except ValueError:
            found = None
    if not isinstance(found, dict) or not {"round_id", "run_id", "number"} <= found.keys():
        raise _damaged(path)
    return found


def _damaged(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"The stored update {path} is damaged, and a second one would reveal more than one does; "
        "restore the file, or move it away to leave this round out."
    )


def _unpacked(content: bytes) -> Parcel | None:
    span = _split_header(content)
    if span is None or span[1] > len(content):
        return None
    covered = memoryview(content)[len(_MAGIC) + _DIGEST_BYTES :]
    if hashlib.sha256(covered).digest() != content[len(_MAGIC) : len(_MAGIC) + _DIGEST_BYTES]:
        return None
    try:
        header = json.loads(content[span[0] : span[1]])
        at = span[1] + header["body"]
        body, state = content[span[1] : at], {}
        for name, size in header["state"].items():
            state[name] = None if size is None else content[at : at + size]
            at += size or 0
        return Parcel(
            round_id=header["round_id"],
            run_id=header["run_id"],
            run=header["run"],
            kind=header["kind"],
            number=header["number"],
            body=body,
            state=state,
        )
    except (ValueError, KeyError, TypeError):
        return None
