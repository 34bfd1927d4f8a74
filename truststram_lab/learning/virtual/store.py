"""Arrays of every virtual client: control variates, personal models, what filters held back.

What 10,000 clients keep between rounds is larger than memory; a row of it is not. Up to a limit
they are in memory, beyond it in a file, which is read and written a row at a time: it is never
mapped, so that the memory of the process does not grow with it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from ...exceptions import InvalidInputError, UpdateRejectedError
from ..weights import State

__all__ = ["MEMORY_BYTES", "ClientStates"]

#: What all clients' rows may take in memory, by default; more goes to a file.
MEMORY_BYTES = 64 * 2**20


class ClientStates:
    """One State for each of ``clients`` clients, all like ``like``; zeros until written.

    Args:
        like: names, shapes and types of a client's arrays.
        folder: where the file lies; by default the system's folder for temporary files. It has
            no name in the folder's listing, and is deleted with the object.
        path: a file that stays, instead, whatever the limit; its rows are there again for the
            next store of the same arrays.
        memory_bytes: largest size that is kept in memory.
    """

    def __init__(
        self,
        clients: int,
        like: Mapping[str, np.ndarray],
        folder: Path | None = None,
        *,
        path: Path | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        if clients < 1:
            raise InvalidInputError(f"A store for {clients} clients keeps nothing; use 1 or more.")
        # Offsets a multiple of eight keep every array aligned in every row.
        self._layout: dict[str, tuple[int, np.dtype, tuple[int, ...]]] = {}
        size = 0
        for name, array in like.items():
            self._layout[name] = (size, array.dtype, array.shape)
            size += -(-array.nbytes // 8) * 8
        self.row_bytes = size
        self._written = np.zeros(clients, bool)
        self._file: IO[bytes] | None = None
        self._rows: np.ndarray | None = None
        if path is None and clients * size <= memory_bytes:
            self._rows = np.zeros((clients, size), np.uint8)
            return
        self._file = _opened(path, folder)
        # Grown, not written: a row that nobody wrote takes no room on most file systems.
        self._file.truncate(max(clients * size, 1))

    @property
    def spilled(self) -> bool:
        """Whether the rows are in a file."""
        return self._rows is None

    def __len__(self) -> int:
        return len(self._written)

    def __contains__(self, client: int) -> bool:
        """Whether the client's row was ever written, by this object."""
        return bool(self._written[client])

    def __getitem__(self, client: int) -> State:
        """A copy of the client's arrays."""
        row = self._read(client)
        return {
            name: row[at : at + _bytes(dtype, shape)].view(dtype).reshape(shape).copy()
            for name, (at, dtype, shape) in self._layout.items()
        }

    def __setitem__(self, client: int, state: Mapping[str, np.ndarray]) -> None:
        """Write the client's arrays.

        Raises:
            UpdateRejectedError: names, shapes or types are not those of the store.
        """
        self._check(client)
        if state.keys() != self._layout.keys():
            odd = sorted(state.keys() ^ self._layout.keys())[0]
            raise UpdateRejectedError(
                f"Array {odd!r} is in the store or in the state, but not in both; write states of "
                "one model.",
                field=odd,
            )
        for name, (_, dtype, shape) in self._layout.items():
            array = state[name]
            if array.dtype != dtype or array.shape != shape:
                raise UpdateRejectedError(
                    f"Array {name!r} is {array.dtype} {array.shape}, but the store keeps {dtype} "
                    f"{shape}.",
                    field=name,
                )
        row = np.zeros(self.row_bytes, np.uint8) if self._rows is None else self._rows[client]
        for name, (at, dtype, shape) in self._layout.items():
            row[at : at + _bytes(dtype, shape)].view(dtype).reshape(shape)[...] = state[name]
        if self._file is not None:
            os.pwrite(self._file.fileno(), row.data, client * self.row_bytes)
        self._written[client] = True

    def sync(self) -> None:
        """When this returns, what was written outlives the process and the power."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def _read(self, client: int) -> np.ndarray:
        self._check(client)
        if self._rows is not None:
            row: np.ndarray = self._rows[client]
            return row
        assert self._file is not None, "it is open, and not in memory"
        found = os.pread(self._file.fileno(), self.row_bytes, client * self.row_bytes)
        return np.frombuffer(found, np.uint8)

    def _check(self, client: int) -> None:
        if self._rows is None and self._file is None:
            raise InvalidInputError("The store is closed; make a new one.")
        if not 0 <= client < len(self):
            raise InvalidInputError(
                f"There is no client {client}; the store keeps 0 to {len(self) - 1}."
            )

    def close(self) -> None:
        """Let go of the rows; a file that has a path stays."""
        self._rows = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> ClientStates:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened(path: Path | None, folder: Path | None) -> IO[bytes]:
    if path is None:
        return tempfile.TemporaryFile(dir=folder, buffering=0)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", 0)


def _bytes(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    return int(dtype.itemsize * np.prod(shape, dtype=np.int64))
