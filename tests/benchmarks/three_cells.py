"""What the three cells cost.

Every figure is the median of several runs in fresh processes; where a bare tool does the same
work, it is measured in the same run, interleaved, and the ratio is what counts.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TITLE = "The three cells"
REPEATS = 5


def _python(code: str, env: dict[str, str]) -> float:
    """Seconds that ``code`` says it took (its last line), in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    return float(done.stdout.splitlines()[-1])


def _timed(body: str, setup: str = "") -> str:
    return f"{setup}\nimport time\n_t=time.perf_counter()\n{body}\nprint(time.perf_counter()-_t)\n"


SHELL = (
    "from IPython.testing.globalipapp import start_ipython\n"
    "from IPython.core.interactiveshell import InteractiveShell\n"
    "ip = InteractiveShell.instance()"
)
LOGIN = "from truststram_lab import verbs\nverbs.login(sandbox=True)"


def _cold_start(env: dict[str, str]) -> float:
    return _python(_timed("s.ensure()", "from truststram_lab import sandbox as s\ns.stop()"), env)


def measure(*, repeats: int, demos: int) -> dict[str, list[float]]:
    """name -> seconds of each repeat."""
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "TRUSTSTRAM_HOME": str(Path(folder) / "home"), "OMP_NUM_THREADS": "2"}
        try:
            for _ in range(repeats):
                note("bare interpreter: import json", _python(_timed("import json"), env))
                note("import truststram_lab", _python(_timed("import truststram_lab"), env))
                note(
                    "%load_ext",
                    _python(_timed("ip.run_line_magic('load_ext','truststram_lab')", SHELL), env),
                )
                note("import pandas (for scale)", _python(_timed("import pandas"), env))
                note("sandbox: cold start until it answers", _cold_start(env))
                note(
                    "sandbox: found again, and asked who I am",
                    _python(
                        _timed("s.ensure(); c.accounts.whoami()",
                               "from truststram_lab import sandbox as s, TrustStramClient\n"
                               "c = TrustStramClient(environment='sandbox'); s.ensure()"),
                        env,
                    ),
                )  # fmt: skip
            for repeat in range(demos):
                started = time.perf_counter()
                copy = Path(folder) / f"demo-{repeat}.ipynb"
                subprocess.run(
                    [sys.executable, "-m", "truststram_lab.cli", "demo", "--save", str(copy)],
                    check=True, capture_output=True, env=env,
                )  # fmt: skip
                note("the three cells, kernel and platform from nothing",
                     time.perf_counter() - started)  # fmt: skip
            note("predict: one row, median of 200", _python(_PREDICT.format(explain=False), env))
            note("predict and explain: one row, median of 200",
                 _python(_PREDICT.format(explain=True), env))  # fmt: skip
            note("whoami on the same connection, median of 200", _python(_HEALTH, env))
        finally:
            _python("from truststram_lab import sandbox as s\ns.stop()\nprint(0)", env)
    return found


_PREDICT = f"""
{LOGIN}
import statistics, time
verbs.federate("breast-cancer", rounds=2, background=True).wait()
from truststram_lab.preprocessing.demo import load_demo
demo = load_demo("breast-cancer")
row = demo.frame.drop(columns=[demo.target]).iloc[0].to_dict()
client = verbs.session.require("measuring").client
times = []
for _ in range(220):
    t = time.perf_counter()
    client.inference.predict(model_id="breast-cancer", data=row, explain={{explain}})
    times.append(time.perf_counter() - t)
print(statistics.median(times[20:]))
"""

_HEALTH = f"""
{LOGIN}
import statistics, time
client = verbs.session.require("measuring").client
times = []
for _ in range(220):
    t = time.perf_counter()
    client.accounts.whoami()
    times.append(time.perf_counter() - t)
print(statistics.median(times[20:]))
"""


def _table(found: dict[str, list[float]]) -> str:
    lines = ["| What | median | smallest | largest | runs |", "|---|---:|---:|---:|---:|"]
    for name, values in found.items():
        cells = [statistics.median(values), min(values), max(values)]
        lines.append(
            f"| {name} | "
            + " | ".join(f"{1000 * v:,.1f} ms" for v in cells)
            + f" | {len(values)} |"
        )
    return "\n".join(lines)


def run(quick: bool = False) -> dict[str, object]:
    """Seconds of each repeat, by name."""
    return {"seconds": measure(repeats=1 if quick else REPEATS, demos=1 if quick else 3)}


def report(found: dict) -> str:
    seconds: dict[str, list[float]] = found["seconds"]
    predict = statistics.median(seconds["predict: one row, median of 200"])
    smallest = statistics.median(seconds["whoami on the same connection, median of 200"])
    return (
        f"{_table(seconds)}\n\n"
        f"A prediction takes {predict / smallest:.1f} times the smallest authenticated request "
        "of the same client, connection and run."
    )
