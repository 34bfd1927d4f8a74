"""Which process listens on a port of this computer, as far as the system tells."""

from __future__ import annotations

import contextlib
from pathlib import Path

__all__ = ["port_holder"]

_LISTENING = "0A"


def port_holder(port: int) -> str | None:
    """Such as ``process 4711 (python -m http.server 8080)``; None where it cannot be read."""
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        # Other users' processes do not show their files, and any may end meanwhile.
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) in inodes:
                        return f"process {process.name} ({_command(process)})"
    return "another user's process"


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                parts = line.split()
                if parts[3] == _LISTENING and int(parts[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{parts[9]}]")
    return found


def _command(process: Path) -> str:
    words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    return " ".join(words).strip()[:80]
