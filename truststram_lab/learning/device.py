"""Which device trains, and how much memory it has. Torch is loaded on use."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ..exceptions import InvalidInputError, nearest

__all__ = ["DEVICES", "MemoryFacts", "best_device", "memory_facts"]

#: In the order of preference.
DEVICES = ("cuda", "mps", "cpu")


def best_device(requested: str | None = None) -> str:
    """The device to train on: ``requested``, else the first there is of cuda, mps and cpu.

    Raises:
        InvalidInputError: ``requested`` is not one of the three, or not on this machine.
    """
    if requested is not None and requested not in DEVICES:
        raise InvalidInputError(
            f"{requested!r} is no device; choose one of {', '.join(DEVICES)}.",
            field="device",
            choices=nearest(requested, DEVICES) or list(DEVICES),
        )
    available = _available()
    if requested is None:
        return available[0]
    if requested not in available:
        raise InvalidInputError(
            f"This machine has no {requested} that torch can use; "
            f"choose {' or '.join(available)}, or leave the device out.",
            field="device",
            choices=available,
        )
    return requested


def _available() -> list[str]:
    import torch

    found = []
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


@dataclass(frozen=True)
class MemoryFacts:
    """Peak use by this process and the device's total, in bytes; None where unknown."""

    peak_bytes: int | None
    total_bytes: int | None


def memory_facts(device: str) -> MemoryFacts:
    """How much memory this process used at most on ``device``, and how much there is."""
    if device == "cuda":
        import torch

        return MemoryFacts(torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1])
    if device == "mps":
        import torch

        # Metal has no peak counter; what the driver holds now is its upper bound in use.
        return MemoryFacts(torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory())
    return MemoryFacts(_process_peak(), _machine_total())


def _process_peak() -> int | None:
    # Not from getrusage where /proc is: Linux hands a process its starter's peak at exec.
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _machine_total() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # the system does not say
        return None
