"""However often a training reports, the front end gets few messages and the last state."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

pytestmark = pytest.mark.kernel

#: The promise: display messages in any second, all outputs of a view together.
MOST_IN_A_SECOND = 10
DISPLAY = ("display_data", "update_display_data")

REPORTER = """
import threading, time
from truststram_lab.widgets import LiveView

class Card:
    def __init__(self, count):
        self.text = f"report {count}"
    def bundle(self):
        return {"text/plain": self.text, "text/html": f"<p>{self.text}</p>"}

def train(seconds, threads=1, burst=1):
    \"\"\"Report 1,000 times a second from each thread, in bursts.\"\"\"
    count = 0
    def card():
        return Card(count)
    def report():
        nonlocal count
        begin = time.perf_counter()
        due = 0
        while (now := time.perf_counter() - begin) < seconds:
            while due <= now * 1000:
                count += 1
                due += 1
                view.refresh()
            time.sleep(burst / 1000)
    view = LiveView(card, lambda: None)
    view.show()
    others = [threading.Thread(target=report) for _ in range(threads - 1)]
    for each in others:
        each.start()
    report()
    for each in others:
        each.join()
    view.close()
    print("reports:", count)
"""


def most_in_a_second(times: list[float]) -> int:
    """The largest number of ``times`` in seconds within any half-open second."""
    return max(sum(begin <= each < begin + 1 for each in times) for begin in times)


def shown(messages: list[dict[str, Any]]) -> list[float]:
    """When the kernel sent each display message, in seconds."""
    dates = [m["header"]["date"] for m in messages if m["msg_type"] in DISPLAY]
    return [d.timestamp() if isinstance(d, datetime) else float(d) for d in dates]


def test_seconds_are_counted_wherever_they_begin():
    assert most_in_a_second([0.0, 0.9, 1.1, 1.8]) == 3
    assert most_in_a_second([0.0, 1.0, 2.0]) == 1


@pytest.mark.parametrize(
    ("seconds", "threads", "burst"),
    [(3.0, 1, 1), (3.0, 4, 1), (3.0, 1, 250), (0.4, 1, 1), (0.9, 1, 1), (1.3, 1, 1)],
    ids=["steady", "four threads", "bursts", "over at once", "under a second", "just over"],
)
def test_a_training_that_reports_a_thousand_times_a_second_sends_ten_messages(
    notebook, seconds, threads, burst
):
    notebook.run(REPORTER)
    before = len(notebook.messages)
    cell = notebook.run(f"train({seconds}, {threads}, {burst})")
    reports = int(cell.text.rpartition("reports: ")[2])
    assert reports > 500 * seconds
    times = shown(notebook.messages[before:])
    assert most_in_a_second(times) <= MOST_IN_A_SECOND
    # Few is not none: about twice a second is promised, and its end is the last report.
    assert len(times) >= 2 * seconds
    assert cell.text.startswith(f"report {reports}")


def test_a_run_sends_no_more_than_ten_messages_a_second(notebook):
    notebook.run("%load_ext truststram_lab\n%ts_login --sandbox")
    before = len(notebook.messages)
    notebook.run("%ts_federate breast-cancer --clients 2 --rounds 30 --epochs 1 --as rate")
    times = shown(notebook.messages[before:])
    assert len(times) >= 8
    assert most_in_a_second(times) <= MOST_IN_A_SECOND
