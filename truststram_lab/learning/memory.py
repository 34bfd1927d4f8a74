"""Memory that does not suffice: known by its error, let go, and the batch that fits, by measure.

Torch is looked at only where it is loaded already, or where a step of it is measured.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..exceptions import InsufficientResourcesError

__all__ = ["fitting_batch", "free_bytes", "free_memory", "is_out_of_memory", "too_small"]

#: Torch's words where the system gives its CPU allocator no memory; it has no class of its own.
_CPU_WORDS = ("can't allocate memory", "not enough memory")
#: Rows of the first measured step; the second has twice as many.
_FEW = 4
#: What is not planned with: fragments, and scratch memory that no tensor owns.
_SHARE = 0.9


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice: Python's, numpy's, torch's on the CPU or a device's."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError):
        return True
    if torch is None or not isinstance(error, RuntimeError):
        return False
    words = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        "DefaultCPUAllocator" in words and any(each in words for each in _CPU_WORDS)
    )


def free_memory() -> None:
    """Give back what is held for nobody; call it when the error is gone, which holds frames."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch is not None and torch.backends.mps.is_available():
        torch.mps.empty_cache()


def free_bytes(device: str) -> int | None:
    """What a process may still take on ``device`` ("cpu", "cuda" or "mps"); None if unknown.

    On the CPU the least of what the machine has, what its control group has, and what the
    process's limit of address space leaves.
    """
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    if device == "mps":
        import torch

        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    found = [each for each in (_machine_free(), _group_free(), _limit_free()) if each is not None]
    return max(0, min(found)) if found else None


def fitting_batch(step: Callable[[int], None], tried: int, device: str) -> int | None:
    """The rows of a batch that fits where ``tried`` rows do not; None if not even one does.

    Two small steps are measured; with what is free, their difference by rows says how many
    rows fit. That many are tried, and halved until they do.

    Args:
        step: forward and backward of so many rows; it keeps nothing.
        tried: 1 or more.
    """
    most = tried // 2
    free_memory()
    with contextlib.suppress(_NoMemoryError):
        few = min(_FEW, max(1, most))
        one, two = _measured(step, few, device), _measured(step, 2 * few, device)
        slope, free = (two - one) / few, free_bytes(device)
        if slope > 0 and free is not None:
            planned = int((_SHARE * free - (one - slope * few)) / slope)
            if planned < tried:
                most = planned
    while most >= 1:
        with contextlib.suppress(_NoMemoryError):
            _measured(step, most, device)
            return most
        most //= 2
    return None


def too_small(device: str, tried: int | None, fits: int | None) -> InsufficientResourcesError:
    """The error of a memory that is too small, once it is free again.

    Args:
        tried: rows of the batch, None where only somebody's own function knows.
        fits: the rows that ``fitting_batch`` found.
    """
    where = "The memory" if device == "cpu" else f"The memory of {device}"
    what = "this training" if tried is None else f"batches of {tried}"
    free = free_bytes(device)
    left = "" if free is None else f" ({free / 2**20:,.0f} MiB)"
    if fits is not None:
        way_out = f"a batch that was tried fits: choose a batch_size of {fits} or less"
    elif tried is None:
        way_out = "train in smaller batches"
    else:
        way_out = "not even one row a batch fits: choose a smaller network"
    away = "" if device == "cpu" else ", or train on the cpu"
    return InsufficientResourcesError(
        f"{where} is too small for {what}; nothing was sent, and it is free again{left}: "
        f"{way_out}{away}."
    )


class _NoMemoryError(Exception):
    """A step did not fit."""


def _measured(step: Callable[[int], None], rows: int, device: str) -> int:
    """The most bytes that the step's tensors had at a time.

    Raises:
        _NoMemoryError: they did not fit.
    """
    fits, most = True, 0
    try:
        with _peak(device) as found:
            step(rows)
        most = found()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    free_memory()
    if not fits:
        raise _NoMemoryError
    return most


@contextmanager
def _peak(device: str) -> Iterator[Callable[[], int]]:
    """Counts the bytes of tensors that are made within and still alive."""
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield lambda: torch.cuda.max_memory_allocated() - before
        return
    with _counting() as most:
        yield most


@contextmanager
def _counting() -> Iterator[Callable[[], int]]:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    now = most = 0
    seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def gone(size: int) -> None:
        nonlocal now
        now -= size

    # Torch annotates neither the metaclass call nor the constructor of this mode.
    class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal now, most
            made = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(made):
                storage = leaf.untyped_storage() if isinstance(leaf, torch.Tensor) else None
                if storage is not None and storage not in seen:
                    seen.add(storage)
                    size = storage.nbytes()
                    now += size
                    most = max(most, now)
                    weakref.finalize(storage, gone, size).atexit = False
            return made

    with Counter():  # type: ignore[no-untyped-call]  # as above
        yield lambda: most


def _machine_free() -> int | None:
    with contextlib.suppress(OSError):  # not Linux
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _group_free() -> int | None:
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no such group, or "max": no limit
        limit = int((group / "memory.max").read_text())
        return limit - int((group / "memory.current").read_text())
    return None


def _limit_free() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    with contextlib.suppress(OSError):  # not Linux
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return limit - pages * os.sysconf("SC_PAGE_SIZE")
    return None
