"""Where the updates of a round are read from: memory, files, or whatever decodes them."""

from __future__ import annotations

import json
import mmap
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from ...exceptions import UpdateRejectedError
from ..weights import State, all_finite, check_update, decode
from .blocks import like, spans

__all__ = [
    "DecodedUpdates",
    "HeldUpdates",
    "StoredUpdates",
    "Updates",
    "check_block",
    "check_layout",
    "columns",
]

_COLUMN_BYTES = 2**25

#: Flattened array ``name``, numbers ``part``.
ReadBlock = Callable[[str, slice], np.ndarray]


class Updates(Protocol):
    """The updates of a round, in the plan's order, of which only blocks are asked for.

    A mean goes through one update after the other; a robust rule looks at the same columns of
    all of them. Neither holds an update as a whole.
    """

    def __len__(self) -> int:
        """How many there are."""

    def layout(self, place: int) -> Mapping[str, np.ndarray]:
        """Names, shapes and types of the update at ``place``; the values mean nothing."""

    def block(self, place: int, name: str, part: slice) -> np.ndarray:
        """Numbers ``part`` of the flattened array ``name`` of the update at ``place``.

        They are there until the next block is asked for.
        """


class HeldUpdates:
    """Updates that are in memory already."""

    def __init__(self, updates: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._updates = updates
        self._flat = [{n: a.reshape(-1) for n, a in update.items()} for update in updates]

    def __len__(self) -> int:
        return len(self._updates)

    def layout(self, place: int) -> Mapping[str, np.ndarray]:
        return self._updates[place]

    def block(self, place: int, name: str, part: slice) -> np.ndarray:
        return self._flat[place][name][part]


class DecodedUpdates:
    """Updates that take work to read; the last one that was asked for is kept.

    A mean reads each once. A robust rule reads all of them for every block of columns, so
    give it ``StoredUpdates`` instead.

    Args:
        readers: one function a site, in the plan's order, that returns its update.
    """

    def __init__(self, readers: Sequence[Callable[[], Mapping[str, np.ndarray]]]) -> None:
        self._readers = readers
        self._last: tuple[int, HeldUpdates] | None = None

    def __len__(self) -> int:
        return len(self._readers)

    def layout(self, place: int) -> Mapping[str, np.ndarray]:
        return self._read(place).layout(0)

    def block(self, place: int, name: str, part: slice) -> np.ndarray:
        return self._read(place).block(0, name, part)

    def _read(self, place: int) -> HeldUpdates:
        if self._last is None or self._last[0] != place:
            # Let go of the former one first: two at a time are one too many.
            self._last = None
            self._last = (place, HeldUpdates([self._readers[place]()]))
        return self._last[1]


class StoredUpdates:
    """Updates in safetensors files that do not change while they are read.

    Args:
        paths: one file a site, in the plan's order.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        # Updates of one model have the same header, so one entry usually serves all.
        self._known: dict[tuple[bytes, int], tuple[State, dict[str, int]]] = {}
        self._of: list[tuple[State, dict[str, int]] | None] = [None] * len(paths)
        # One open file: a thousand are more than a process may have.
        self._last: tuple[int, int, weakref.finalize[..., StoredUpdates]] | None = None
        self._buffer = np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self._paths)

    def layout(self, place: int) -> State:
        """What the file's header says, checked.

        Raises:
            UpdateRejectedError: the file is not well-formed.
        """
        return self._look(place)[0]

    def block(self, place: int, name: str, part: slice) -> np.ndarray:
        """The block alone is read from the file."""
        layout, starts = self._look(place)
        dtype = layout[name].dtype
        wanted = (part.stop - part.start) * dtype.itemsize
        if self._buffer.size < wanted:
            self._buffer = np.empty(wanted, np.uint8)
        content = self._buffer[:wanted]
        at = starts[name] + part.start * dtype.itemsize
        if os.preadv(self._open(place), [content.data], at) != wanted:
            raise UpdateRejectedError(
                f"The stored update {place + 1} ends within array {name!r}; let the site send it "
                "again.",
                field=name,
            )
        return content.view(dtype)

    def _open(self, place: int) -> int:
        if self._last is None or self._last[0] != place:
            if self._last is not None:
                self._last[2]()
                self._last = None
            opened = os.open(self._paths[place], os.O_RDONLY | os.O_CLOEXEC)
            self._last = place, opened, weakref.finalize(self, os.close, opened)
        return self._last[1]

    def _look(self, place: int) -> tuple[State, dict[str, int]]:
        known = self._of[place]
        if known is None:
            known = self._of[place] = self._read_header(self._paths[place])
        return known

    def _read_header(self, path: Path) -> tuple[State, dict[str, int]]:
        size = path.stat().st_size
        if not size:
            decode(b"")  # says what is wrong; nothing can be mapped of an empty file
        with path.open("rb") as file:
            # Not closed by hand: arrays look into the map, and it goes with the last of them.
            body = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        end = 8 + int.from_bytes(body[:8], "little")
        header = bytes(body[:end])
        if (header, size) not in self._known:
            # A map of a file reads like bytes; of the arrays, only the header is touched.
            layout = like(decode(cast(bytes, body))[0])
            entries = json.loads(header[8:])
            starts = {name: end + entries[name]["data_offsets"][0] for name in layout}
            self._known[header, size] = (layout, starts)
        return self._known[header, size]


def check_layout(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Refuse an update of other names, shapes or types than ``expected``.

    Raises:
        UpdateRejectedError: see ``weights.check_update``, whose sentence it is.
    """
    same = found.keys() == expected.keys() and all(
        (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
        for name, array in expected.items()
    )
    if not same:
        check_update(like(found), expected)


def check_block(read: ReadBlock, block: np.ndarray, name: str, array: np.ndarray) -> None:
    """Refuse an update with a value in ``block`` that is not finite.

    Args:
        read: reads the update, to count how many there are in all.
        block: a part of the update's array ``name``.
        array: what the whole array looks like.

    Raises:
        UpdateRejectedError: see ``weights.check_update``, whose sentence it is.
    """
    if not all_finite(block):
        whole = read(name, slice(0, array.size)).reshape(array.shape)
        check_update({name: whole}, {name: array})


def columns(updates: Updates, name: str, array: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """The same columns of all updates, block by block: (columns, (updates, columns)).

    The matrix takes about 32 MB, and is used again for the next block.

    Args:
        updates: of the layout that ``check_layout`` saw.
        name: of the array.
        array: what it looks like.

    Raises:
        UpdateRejectedError: a value is not finite.
    """
    step = max(64, _COLUMN_BYTES // (8 * len(updates)))
    matrix = np.empty((len(updates), min(step, array.size)), array.dtype)
    for part in spans(array.size, step):
        block = matrix[:, : part.stop - part.start]
        for place in range(len(updates)):
            block[place] = updates.block(place, name, part)
            check_block(partial(updates.block, place), block[place], name, array)
        yield part, block
