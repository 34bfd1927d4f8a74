"""Requests whose caller hangs up in the middle, over a bare socket."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from platform_process import START_S, PlatformProcess


def abandon(
    platform: PlatformProcess,
    request: str,
    token: str,
    *,
    sent: bytes,
    announced: int,
    headers: Mapping[str, str] | None = None,
    hold: Callable[[], bool] = lambda: True,
) -> None:
    """Send ``request`` ("PUT /path") and ``sent`` of a body of ``announced`` bytes; hang up.

    The line is held until ``hold`` is true.
    """
    place = urlsplit(platform.url)
    lines = {
        "Host": place.netloc,
        "Authorization": f"Bearer {token}",
        "Content-Length": str(announced),
        **(headers or {}),
    }
    head = f"{request} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
    assert place.hostname is not None
    with socket.create_connection((place.hostname, place.port or 80), timeout=30) as made:
        made.sendall(head.encode() + sent)
        deadline = time.monotonic() + START_S
        while not hold():
            assert time.monotonic() < deadline, platform.log
            time.sleep(0.02)


def line_of(platform: PlatformProcess, request: str) -> dict[str, Any]:
    """The access log's line of ``request``, which must come only once."""
    deadline = time.monotonic() + START_S
    while True:
        lines = [
            line
            for line in platform.access_lines()
            if f"{line['method']} {line['path']}" == request
        ]
        if lines:
            assert len(lines) == 1, lines
            return lines[0]
        assert time.monotonic() < deadline, platform.log
        time.sleep(0.02)
