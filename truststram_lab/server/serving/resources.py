"""What this computer has left for workers, measured."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from truststram_lab.exceptions import InsufficientResourcesError
from truststram_lab.learning.memory import free_bytes

__all__ = ["WORKERS_PER_CORE", "check_fits", "core_count", "own_bytes", "room"]

#: Workers that share a core still answer; more of them only take memory.
WORKERS_PER_CORE = 4

#: Memory that workers leave to everything else on the computer.
RESERVE_BYTES = 256 * 2**20

_GROUP = Path("/sys/fs/cgroup")


def core_count() -> float:
    """Cores that this process may use: of its affinity, and of its control group's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = float(len(affinity(0)) if affinity is not None else os.cpu_count() or 1)
    try:
        quota, period = (_GROUP / "cpu.max").read_text().split()
        return min(cores, int(quota) / int(period))
    except (OSError, ValueError):  # no such group, or "max": no limit
        return cores


def own_bytes(pid: int) -> int:
    """Memory that a process shares with nobody; what it shares costs another worker nothing."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        found = subprocess.run(  # noqa: S603 - a fixed command with a number
            ["/bin/ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return int(found.stdout.strip() or 0) * 1024
    return sum(int(kb) for kb in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.M)) * 1024


def room(running: int, each_bytes: int) -> int:
    """How many workers more fit beside ``running`` ones, if each takes so much memory."""
    by_cores = max(1, int(core_count() * WORKERS_PER_CORE)) - running
    free = free_bytes("cpu")
    if free is None:
        return max(0, by_cores)
    return max(0, min(by_cores, (free - RESERVE_BYTES) // max(1, each_bytes)))


def check_fits(label: str, wanted: int, running: int, each_bytes: int) -> None:
    """Refuse ``wanted`` workers more than ``running`` if they do not fit.

    Args:
        each_bytes: what one of them was measured to take; 0 if that is not known yet.

    Raises:
        InsufficientResourcesError: says what is there, what is needed, and how many fit.
    """
    fits = room(running, each_bytes)
    if wanted <= fits:
        return
    free = free_bytes("cpu")
    memory = "" if free is None else f" and {free / 2**20:,.0f} MiB free"
    each = f" of {each_bytes / 2**20:,.1f} MiB each" if each_bytes else ""
    raise InsufficientResourcesError(
        f"{label} needs {wanted} more workers{each}, but {fits} "
        f"fit beside the {running} that run ({core_count():g} cores{memory}); lower "
        "min_instances, or deploy to fewer endpoints."
    )
