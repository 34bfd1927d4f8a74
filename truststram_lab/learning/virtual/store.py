"""Arrays of every virtual client in a file: control variates, personal models, velocities.

What 10,000 clients keep between rounds is larger than memory; a row of it is not. The file is
mapped, so that the system decides what of it is in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...exceptions import InvalidInputError, UpdateRejectedError
from ..weights import State

__all__ = ["ClientStates"]


class ClientStates:
    """One State for each of ``clients`` clients, all like ``like``; zeros until written.

    The file has no name in the folder's listing once it is closed: it is deleted with the object.

    Args:
        like: names, shapes and types of a client's arrays.
        folder: where the file lies; by default the system's folder for temporary files.
    """

    def __init__(
        self, clients: int, like: Mapping[str, np.ndarray], folder: Path | None = None
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
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed by close)
        # Grown, not written: a row that nobody wrote takes no room on most file systems.
        self._file.truncate(clients * max(size, 8))
        self._rows: np.ndarray | None = np.memmap(
            self._file, np.uint8, "r+", shape=(clients, max(size, 8))
        )
        self._written = np.zeros(clients, bool)

    def __len__(self) -> int:
        return len(self._written)

    def __contains__(self, client: int) -> bool:
        """Whether the client's row was ever written."""
        return bool(self._written[client])

    def __getitem__(self, client: int) -> State:
        """A copy of the client's arrays."""
        row = self._row(client)
        return {
            name: row[at : at + _bytes(dtype, shape)].view(dtype).reshape(shape).copy()
            for name, (at, dtype, shape) in self._layout.items()
        }

    def __setitem__(self, client: int, state: Mapping[str, np.ndarray]) -> None:
        """Write the client's arrays.

        Raises:
            UpdateRejectedError: names, shapes or types are not those of the store.
        """
        row = self._row(client)
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
        for name, (at, dtype, shape) in self._layout.items():
            row[at : at + _bytes(dtype, shape)].view(dtype).reshape(shape)[...] = state[name]
        self._written[client] = True

    def _row(self, client: int) -> np.ndarray:
        if self._rows is None:
            raise InvalidInputError("The store is closed; make a new one.")
        if not 0 <= client < len(self):
            raise InvalidInputError(
                f"There is no client {client}; the store keeps 0 to {len(self) - 1}."
            )
        row: np.ndarray = self._rows[client]
        return row

    def close(self) -> None:
        """Let go of the file, and with it of all rows."""
        self._rows = None
        self._file.close()

    def __enter__(self) -> ClientStates:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _bytes(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    return int(dtype.itemsize * np.prod(shape, dtype=np.int64))
