"""What virtual clients keep between rounds; a kernel's death never mixes two rounds of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from truststram_lab.federated.participation.files import private_folder
from truststram_lab.learning import weights
from truststram_lab.learning.virtual import ClientStates
from truststram_lab.learning.virtual.store import MEMORY_BYTES
from truststram_lab.learning.weights import State

__all__ = ["OwnStates"]

_LAYOUT = "layout"


class OwnStates:
    """One State for each of ``clients`` clients; which arrays it has, the first one written says.

    With a ``path`` each client has two rows in that file: the one that counts, and the one that
    the round at hand writes. ``index`` says which is which; it is stored with the round's update,
    and counts when the platform has taken that. A round that is made again after a kernel's
    death therefore reads what the round before it had left.

    Args:
        path: of a file that outlives the kernel; without one, what is written counts at once,
            in memory up to ``memory_bytes``, beyond it in a file that nobody sees.
        index: of the last round that counts; None before the first.
    """

    def __init__(
        self,
        clients: int,
        path: Path | None = None,
        index: bytes | None = None,
        *,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._clients = clients
        self._path = path
        self._memory_bytes = memory_bytes
        self._store: ClientStates | None = None
        #: Of each client, which of its rows counts: 1 or 2; 0 is none.
        self._counts = np.zeros(clients, np.uint8)
        if index is not None:
            found, texts = weights.decode(index)
            self._counts = found["counts"].copy()
            layout: list[tuple[str, str, list[int]]] = json.loads(texts[_LAYOUT])
            self._open({n: np.broadcast_to(np.zeros((), t), shape) for n, t, shape in layout})
        self._following = self._counts if path is None else self._counts.copy()

    def __contains__(self, client: int) -> bool:
        """Whether the client keeps something."""
        return bool(self._counts[client])

    def __getitem__(self, client: int) -> State:
        """A copy of the arrays that count."""
        assert self._store is not None, "nothing was kept of this client"
        return self._store[self._row(client, int(self._counts[client]))]

    def get(self, client: int, default: State) -> State:
        """A copy of the arrays that count, or ``default``."""
        return self[client] if self._counts[client] else default

    def __setitem__(self, client: int, state: Mapping[str, np.ndarray]) -> None:
        """Keep the client's arrays.

        Raises:
            UpdateRejectedError: they are not those that other clients keep.
        """
        store = self._store or self._open(state)
        row = 2 if self._path is not None and self._counts[client] == 1 else 1
        store[self._row(client, row)] = state
        self._following[client] = row

    def index(self) -> bytes | None:
        """What makes the rows written so far count; they are on disk when this returns.

        None where nothing was ever kept.
        """
        if self._store is None:
            return None
        self._store.sync()
        return weights.encode({"counts": self._following}, {_LAYOUT: json.dumps(self._layout)})

    def close(self) -> None:
        """Let go of the file; one with a path stays."""
        if self._store is not None:
            self._store.close()

    def _row(self, client: int, which: int) -> int:
        return client if self._path is None else 2 * client + which - 1

    def _open(self, like: Mapping[str, np.ndarray]) -> ClientStates:
        self._layout = [(name, array.dtype.str, list(array.shape)) for name, array in like.items()]
        if self._path is None:
            self._store = ClientStates(self._clients, like, memory_bytes=self._memory_bytes)
        else:
            private_folder(self._path.parent)
            self._store = ClientStates(2 * self._clients, like, path=self._path)
        return self._store
