"""Messages between the platform and its workers: a JSON header, then raw bodies.

Header and bodies are data, never pickled objects: what a worker wrote cannot run here.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["receive", "send"]

#: bytes of the header, and of all bodies together
_SIZES = struct.Struct("!QQ")

#: an ordinary message is read at once
_ONCE_BYTES = 65_536


def send(channel: socket.socket, header: Mapping[str, Any], bodies: Sequence[bytes] = ()) -> None:
    """Write one message; ``header`` gets the key ``sizes``.

    Raises:
        OSError: nobody reads it.
    """
    text = json.dumps({**header, "sizes": [len(body) for body in bodies]}).encode()
    sizes = _SIZES.pack(len(text), sum(map(len, bodies)))
    channel.sendall(b"".join((sizes, text, *bodies)))


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[bytes]]:
    """Read one message: header and bodies. The two sides speak in turn, so nothing follows it.

    Raises:
        EOFError: the other side is gone.
        TimeoutError: it said nothing for as long as the channel's timeout.
        OSError: the channel broke.
    """
    first = channel.recv(_ONCE_BYTES)
    while len(first) < _SIZES.size:
        piece = channel.recv(_ONCE_BYTES) if first else b""
        if not piece:
            raise EOFError
        first += piece
    header_bytes, body_bytes = _SIZES.unpack_from(first)
    end = _SIZES.size + header_bytes + body_bytes
    whole = first if len(first) == end else _rest(channel, first, end)
    start = _SIZES.size + header_bytes
    header: dict[str, Any] = json.loads(whole[_SIZES.size : start])
    bodies = []
    for size in header["sizes"]:
        bodies.append(bytes(whole[start : start + size]))
        start += size
    return header, bodies


def _rest(channel: socket.socket, first: bytes, end: int) -> bytearray:
    whole = bytearray(end)
    whole[: len(first)] = first
    view, filled = memoryview(whole), len(first)
    while filled < end:
        count = channel.recv_into(view[filled:])
        if not count:
            raise EOFError
        filled += count
    return whole
