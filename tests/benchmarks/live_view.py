"""What watching a run costs the run: the same training with its live card, and with none.

Pairs of the same run (data, seed, rounds) in a real kernel, in turn. *Without* has a view that
shows nothing; everything else is the same, and the kernel's messages are read by a client.

Wall times of pairs differ by more than the view can cost, so its own work is measured as well:
the CPU time of every thread while it is in the view's code, and of the kernel's thread that sends
what is shown. Training waits for no more than that, as the view sleeps otherwise.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyter_client import BlockingKernelClient, KernelManager

import truststram_lab
from truststram_lab import sandbox

from .pairs import in_turn, percent, ratio

TITLE = "A live view"
PAIRS = 8
FRESH_PAIRS = 3
ROUNDS = 15
#: So many that the packages of the button are loaded while it goes on.
LONG_ROUNDS = 50
DISPLAY = ("display_data", "update_display_data")

_SET_UP = """
%load_ext truststram_lab
%ts_login --sandbox
import time
from truststram_lab import verbs
from truststram_lab.verbs import live
_real = live.view_of
class _Nothing:
    def show(self): pass
    def refresh(self, force=False): pass
    def close(self, next_steps=None): pass
from truststram_lab.widgets.live import LiveView
_own = []
def _timed(method):
    def measured(*args, **kwargs):
        begin = time.thread_time()
        try:
            return method(*args, **kwargs)
        finally:
            _own.append(time.thread_time() - begin)
    return measured
for _name in ("show", "refresh", "close", "_add_button"):
    setattr(LiveView, _name, _timed(getattr(LiveView, _name)))
_sender = time.pthread_getcpuclockid(get_ipython().kernel.iopub_thread.thread.ident)
def _seconds(shown, rounds):
    live.view_of = _real if shown else (lambda *_, **__: _Nothing())
    _own.clear()
    sent = time.clock_gettime(_sender)
    begin, cpu = time.perf_counter(), time.process_time()
    verbs.federate("breast-cancer", clients=5, rounds=rounds, seed=0, name="watched")
    took = [time.perf_counter() - begin, time.process_time() - cpu]
    return [*took, sum(_own) + time.clock_gettime(_sender) - sent]
"""


class Kernel:
    """A real kernel whose messages are taken in as they come."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self._manager = manager
        self._client = client
        self.shown = 0

    def run(self, code: str, ask: str = "None") -> str:
        """Execute a cell; the value of the expression ``ask`` after it."""

        def count(message: dict[str, object]) -> None:
            self.shown += message["msg_type"] in DISPLAY

        reply = self._client.execute_interactive(
            code, user_expressions={"asked": ask}, output_hook=count, timeout=300
        )["content"]
        if reply["status"] != "ok":
            raise RuntimeError("\n".join(reply["traceback"]))
        return str(reply["user_expressions"]["asked"]["data"]["text/plain"])

    def seconds(self, shown: bool, rounds: int) -> tuple[float, float, float]:
        """Wall time of a run, and meanwhile CPU time of the kernel and of the view alone."""
        wall, cpu, own = json.loads(self.run(f"_took = _seconds({shown}, {rounds})", "_took"))
        return wall, cpu, own


@contextmanager
def kernel(home: Path) -> Iterator[Kernel]:
    """A kernel on a home of its own, signed in."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRUSTSTRAM_", "EDGEML_"))}
    environment = {
        **kept,
        "HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": str(Path(truststram_lab.__file__).parents[1]),
        "TRUSTSTRAM_HOME": str(home / "sandbox"),
        # Two cores are shared by the training, the platform and this client.
        "OMP_NUM_THREADS": "1",
    }
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=environment, stderr=subprocess.DEVNULL)
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        found = Kernel(manager, client)
        found.run(_SET_UP)
        yield found
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def run(quick: bool = False) -> dict[str, object]:
    """Seconds of each run of each pair, in one kernel and in fresh ones."""
    pairs, fresh_pairs, rounds = (3, 2, 5) if quick else (PAIRS, FRESH_PAIRS, ROUNDS)
    long_rounds = rounds if quick else LONG_ROUNDS
    warm: dict[bool, list[float]] = {True: [], False: []}
    cpu: dict[bool, list[float]] = {True: [], False: []}
    fresh: dict[bool, list[float]] = {True: [], False: []}
    lasting: dict[bool, list[float]] = {True: [], False: []}
    #: the view's own share of the wall time, of runs that were shown
    own: dict[str, list[float]] = {"at work": [], "first": [], "long first": []}
    messages = 0
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        try:
            with kernel(home) as one:
                for shown in (True, False):
                    one.seconds(shown, rounds)
                for shown in in_turn(pairs):
                    before = one.shown
                    wall, busy, viewed = one.seconds(shown, rounds)
                    warm[shown].append(wall)
                    cpu[shown].append(busy)
                    if shown:
                        own["at work"].append(viewed / wall)
                    messages += one.shown - before
            for shown in in_turn(fresh_pairs):
                for kind, found, length in (
                    ("first", fresh, rounds),
                    ("long first", lasting, long_rounds),
                ):
                    with kernel(home) as new:
                        wall, _, viewed = new.seconds(shown, length)
                    found[shown].append(wall)
                    if shown:
                        own[kind].append(viewed / wall)
        finally:
            sandbox.stop(home / "sandbox")
    return {
        "rounds": rounds,
        "messages_a_run": messages / pairs,
        "with": warm[True],
        "without": warm[False],
        "cpu_with": cpu[True],
        "cpu_without": cpu[False],
        "first_with": fresh[True],
        "first_without": fresh[False],
        "long_first_with": lasting[True],
        "long_first_without": lasting[False],
        "long_rounds": long_rounds,
        "own_share": own,
    }


def report(found: dict) -> str:
    lines = [
        "| Run of | median with | median without | cost | the view's own work, its most | pairs |",
        "|---|---:|---:|---|---:|---:|",
    ]
    rows = (
        ("a kernel at work", "", "at work"),
        ("the same, CPU time of the kernel", "cpu_", None),
        ("a fresh kernel, its first", "first_", "first"),
        (f"the same with {found['long_rounds']} rounds", "long_first_", "long first"),
    )
    for name, prefix, kind in rows:
        seen, unseen = found[f"{prefix}with"], found[f"{prefix}without"]
        lines.append(
            f"| {name} | {statistics.median(seen):.2f} s | {statistics.median(unseen):.2f} s | "
            f"{percent(ratio(seen, unseen))} | {_own(found, kind)} | {len(seen)} |"
        )
    a_second = found["messages_a_run"] / statistics.mean(found["with"])
    return "\n".join(lines) + (
        f"\n\nbreast-cancer, 5 sites, {found['rounds']} rounds; the view sent "
        f"{found['messages_a_run']:.0f} display messages a run, {a_second:.1f} a second. A "
        "kernel's first view of a run that lasts also loads the packages of widgets."
    )


def _own(found: dict, kind: str | None) -> str:
    if kind is None:
        return ""
    shares = found["own_share"][kind]
    return f"{statistics.mean(shares):.2%}, {max(shares):.2%}"
