"""An update of ten million parameters on one thread: clip, exact top-k 1 %, int8, encode.

``run()`` measures ours beside a chain of plain numpy calls that keeps the same coordinates (one
``argpartition``, 32-bit indices, zlib), interleaved in one process whose libraries have one
thread each. Times are the thread's CPU time, which what else runs on the machine changes least.
``python -m tests.benchmarks.delta_chain`` prints what it returns.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

TITLE = "An update of ten million parameters on one thread"

SIZE = 10_000_000
SHARE = 0.01
MAX_NORM = 1.0
REPEATS = 9
#: The goal of the chain of ours.
GOAL = {"milliseconds": 120.0, "bytes": 200_000}
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def run(repeats: int = REPEATS) -> dict[str, Any]:
    """What ``measure`` finds in a fresh process with one thread.

    Returns:
        ``milliseconds`` and ``wall_milliseconds``: name -> one number a repeat, CPU time and
        wall clock; ``median_milliseconds``: of the CPU times;
        ``bytes``: name -> bytes; ``ratio``: plain to ours; ``entropy_bytes``; ``goal``.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.delta_chain", str(repeats)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **THREADS},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def report(found: dict[str, Any]) -> str:
    """The medians beside the goals."""
    sizes, goal = found["bytes"], found["goal"]
    lines = ["| Chain | CPU ms | wall ms | bytes |", "|---|---:|---:|---:|"]
    for name, cpu in found["median_milliseconds"].items():
        wall = statistics.median(found["wall_milliseconds"][name])
        size = f"{sizes[name]:,}" if name in sizes else ""
        lines.append(f"| {name} | {cpu:.0f} | {wall:.0f} | {size} |")
    lines.append(f"| goal | {goal['milliseconds']:g} |  | {goal['bytes']:,} |")
    return (
        "Clip, exact top-k 1 %, int8 and encoding; medians, one thread, in turn with a chain of "
        "plain numpy calls that keeps the same coordinates:\n\n"
        + "\n".join(lines)
        + f"\n\nPlain numpy takes {found['ratio']:.1f} times the CPU time. No code of these "
        f"coordinates and levels can be below {found['entropy_bytes']:,.0f} bytes on average."
    )


def measure(repeats: int) -> dict[str, Any]:
    """As ``run``, in this process: its libraries must have been started with one thread."""
    import numpy as np

    from truststram_lab.learning.encodings import decode, encode
    from truststram_lab.learning.filters import ErrorFeedback, run_filters

    delta = {"w": np.random.default_rng(0).standard_normal(SIZE, dtype=np.float32) * 0.01}
    filters = [
        {"type": "gradient_clip", "max_norm": MAX_NORM},
        {"type": "sparsification", "top_k": SHARE},
        {"type": "quantization", "bits": 8},
    ]
    ours = encode(run_filters(delta, filters).parts).body
    times: dict[str, list[float]] = {}
    walls: dict[str, list[float]] = {}
    chains: dict[str, Callable[[], object]] = {
        "ours": lambda: encode(run_filters(delta, filters).parts),
        "ours, with error feedback": lambda: encode(
            run_filters(delta, filters, feedback=ErrorFeedback()).parts
        ),
        "ours, read back": lambda: decode(ours, delta),
        "plain numpy": lambda: _plain(delta["w"]),
    }
    for _ in range(repeats):
        for name, chain in chains.items():
            started, wall_started = time.thread_time(), time.perf_counter()
            chain()
            times.setdefault(name, []).append(1000 * (time.thread_time() - started))
            walls.setdefault(name, []).append(1000 * (time.perf_counter() - wall_started))
    medians = {name: statistics.median(values) for name, values in times.items()}
    parts = run_filters(delta, filters).parts
    return {
        "milliseconds": times,
        "wall_milliseconds": walls,
        "median_milliseconds": medians,
        "bytes": {
            "ours": len(ours),
            "ours, through zlib -9": len(zlib.compress(ours, 9)),
            "plain numpy": len(_plain(delta["w"])),
            "float32": delta["w"].nbytes,
        },
        "ratio": medians["plain numpy"] / medians["ours"],
        "entropy_bytes": _entropy_bytes(parts["w"]),
        "goal": GOAL,
    }


def _plain(values: Any) -> bytes:
    import numpy as np

    norm = float(np.linalg.norm(values))
    clipped = values * np.float32(min(1.0, MAX_NORM / norm))
    count = math.ceil(SIZE * SHARE)
    places = np.sort(np.argpartition(np.abs(clipped), SIZE - count)[SIZE - count :])
    kept = clipped[places]
    scale = float(np.abs(kept).max()) / 127
    codes = np.rint(kept / scale).astype(np.int8)
    return zlib.compress(places.astype(np.int32).tobytes() + codes.tobytes())


def _entropy_bytes(part: Any) -> float:
    """Bytes below which no code of these coordinates and levels can be on average."""
    import numpy as np

    share = part.kept / part.size
    places = -part.size * (share * math.log2(share) + (1 - share) * math.log2(1 - share))
    _, counts = np.unique(part.levels.codes, return_counts=True)
    shares = counts / counts.sum()
    return float(places - part.kept * (shares * np.log2(shares)).sum()) / 8


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else REPEATS)))
