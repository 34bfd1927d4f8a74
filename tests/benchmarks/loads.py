"""Requests over raw connections, and what a tree of processes took meanwhile.

The caller's own work is not counted, so it may be as plain as it is here.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Load", "cpu_seconds", "memory_bytes", "request", "tree"]


def request(port: int, path: str, body: bytes, token: str | None = None) -> bytes:
    """A POST request as it goes over the wire."""
    credential = f"Authorization: Bearer {token}\r\n" if token else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{credential}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Load:
    """Connections that each ask again as soon as they were answered.

    Args:
        port: of a server on loopback.
        requests: sent in turn.
    """

    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self._port = port
        self._requests = list(requests)

    def run(self, connections: int, each: int) -> list[float]:
        """Seconds of every answer, in no order.

        Raises:
            RuntimeError: an answer was no success.
        """

        async def all_of_them() -> list[list[float]]:
            asking = (self._ask(place, each) for place in range(connections))
            return await asyncio.gather(*asking)

        return [took for one in asyncio.run(all_of_them()) for took in one]

    async def _ask(self, place: int, each: int) -> list[float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**24)
        took = []
        for number in range(each):
            started = time.perf_counter()
            writer.write(self._requests[(place + number) % len(self._requests)])
            await _answer(reader)
            took.append(time.perf_counter() - started)
        writer.close()
        await writer.wait_closed()
        return took


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    size = re.search(rb"content-length: *(\d+)", head)
    if size:
        body = await reader.readexactly(int(size[1]))
    else:
        body = b""
        while count := int(await reader.readline(), 16):
            body += await reader.readexactly(count)
            await reader.readexactly(2)
        await reader.readexactly(2)
    if b" 200 " not in head.partition(b"\r\n")[0] + b" ":
        raise RuntimeError(f"{head.decode()}{body[:500].decode(errors='replace')}")
    return body


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(place.name))
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += children.get(one, [])
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of the processes, in ticks of a hundredth."""
    spent = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


def memory_bytes(pids: Sequence[int]) -> int:
    """Memory of the processes, a page that several share counted once (PSS)."""
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss:\s+(\d+) kB", text, re.M)
        assert found is not None
        total += int(found[1]) * 1024
    return total
