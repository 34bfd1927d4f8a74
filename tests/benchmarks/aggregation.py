"""A thousand updates of ten million parameters: the CPU time and the memory of their mean.

``run()`` starts a fresh process with one thread that aggregates as the platform does: from stored
files, in the plan's order, to the stored next model. Twenty different updates are on disk, and the
round names each of them many times, so the files come from the page cache; reading them from
a disk costs waiting, no arithmetic. The platform checks an update's digest when it arrives, and
what that costs for all of them is measured beside.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TITLE = "A thousand updates of ten million parameters"

SITES = 1_000
PARAMETERS = 10_000_000
FILES = 20
GOAL = {"cpu_s": 60.0, "models": 3.0}
ORGANISATION = "org_0"
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def run(*, quick: bool = False) -> dict[str, Any]:
    """What ``measure`` finds in a fresh process.

    Returns:
        ``mean_cpu_s``: of the aggregation, its result stored; ``digest_cpu_s``: of hashing all
        updates once; ``peak_bytes``: resident memory above that before; ``peak_models``: the
        same in models of ``model_bytes``.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.aggregation", folder,
             str(SITES // 50 if quick else SITES)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **THREADS},
        )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def report(found: dict[str, Any]) -> str:
    """The numbers beside the goals."""
    both = found["mean_cpu_s"] + found["digest_cpu_s"]
    return (
        f"{found['sites']:,} updates of {found['parameters']:,} float32 parameters, from "
        f"{found['files']} stored files that are read again and again, on one thread:\n\n"
        "| What | measured | goal |\n|---|---:|---:|\n"
        f"| weighted mean, next model stored: CPU s | {found['mean_cpu_s']:.1f} | "
        f"{found['goal']['cpu_s']:g} |\n"
        f"| and every update's SHA-256 once: CPU s | {both:.1f} | {found['goal']['cpu_s']:g} |\n"
        f"| peak memory above the start: models | {found['peak_models']:.3f} | "
        f"{found['goal']['models']:g} |\n\n"
        f"A model has {found['model_bytes'] / 1e6:.1f} MB, and the peak is "
        f"{found['peak_bytes'] / 1e6:.1f} MB. Two models of it are the sums in float64; the base "
        "is a mapped file, which is read array by array as the sums give way to the result."
    )


def measure(folder: Path, sites: int) -> dict[str, Any]:
    """As ``run``, in this process: its libraries must have been started with one thread."""
    import numpy as np

    from truststram_lab.learning import weights
    from truststram_lab.learning.strategies import aggregate, expected_update
    from truststram_lab.schemas.strategies import parse_strategy
    from truststram_lab.server.services.updates import stored_updates
    from truststram_lab.server.stores.blobs import BlobStore

    blobs = BlobStore(folder)
    shapes = {"a.weight": (2_500, 3_200), "a.bias": (2_500,), "b.weight": (1_997, 1_000)}
    shapes["b.bias"] = (PARAMETERS - sum(int(np.prod(shape)) for shape in shapes.values()),)

    def stored(seed: int) -> str:
        rng = np.random.default_rng(seed)
        state = {name: rng.standard_normal(s, dtype=np.float32) for name, s in shapes.items()}
        return blobs.put(ORGANISATION, *weights.pieces(state, {"sample_count": "10"})).sha256

    start = stored(FILES)
    different = [stored(seed) for seed in range(FILES)]
    files = [(ORGANISATION, different[place % FILES]) for place in range(sites)]
    strategy = parse_strategy("fedavg")
    # What the round before loaded and allocated is there already.
    small = {"w": np.ones(10, np.float32)}
    aggregate(strategy, small, [small], [1.0])

    before = _resident_bytes(reset=True)
    spent = time.process_time()
    base, _ = weights.decode(blobs.map(ORGANISATION, start))
    given = stored_updates(blobs, files, strategy, expected_update(strategy, base))
    made = aggregate(strategy, base, given, [10.0 + place % 7 for place in range(sites)])
    blobs.put(ORGANISATION, *weights.pieces(made.state))
    spent = time.process_time() - spent
    peak = _resident_bytes(peak=True) - before
    del made, base, given

    hashed = time.process_time()
    for file in files:
        weights.sha256_hex(blobs.map(*file))
    hashed = time.process_time() - hashed
    model = blobs.path(ORGANISATION, start).stat().st_size
    return {
        "sites": sites,
        "parameters": PARAMETERS,
        "files": FILES,
        "mean_cpu_s": spent,
        "digest_cpu_s": hashed,
        "peak_bytes": peak,
        "model_bytes": model,
        "peak_models": peak / model,
        "goal": GOAL,
    }


def _resident_bytes(*, peak: bool = False, reset: bool = False) -> int:
    """Resident memory now, or the most since the last reset; mapped files count."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    wanted = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(wanted))


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
