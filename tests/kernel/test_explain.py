"""Explaining in a real kernel: progress on long work, and an interrupt that is heard."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.kernel

SET_UP = """
%load_ext truststram_lab
import time
import numpy as np, pandas as pd
df = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 3)), columns=["a", "b", "c"])
def slow(rows):
    time.sleep(len(rows) / 20_000)
    return np.asarray(rows)[:, 0]
"""


@pytest.fixture(scope="module")
def ready(open_notebook):
    notebook = open_notebook()
    notebook.run(SET_UP)
    return notebook


def test_long_work_says_how_far_it_is_and_ends_with_its_card(ready):
    before = len(ready.messages)
    cell = ready.run("%ts_explain slow --data df --rows 0:60")
    told = [
        message["content"]["data"]["text/plain"]
        for message in ready.messages[before:]
        if message["msg_type"] in ("display_data", "update_display_data")
    ]
    assert any("of 60 rows" in text for text in told), told
    assert "a" in cell.outputs[-1]["data"]["text/plain"]
    assert len(cell.outputs[-1]["data"]["text/html"]) < 50_000


def test_an_interrupt_is_heard_at_once_and_leaves_one_line(ready):
    key = ready.start("%ts_explain slow --data df --rows 0:400")
    ready.until(lambda message: message["msg_type"] == "display_data")
    asked_at = time.monotonic()
    ready.interrupt()
    cell = ready.finish(key)
    assert time.monotonic() - asked_at < 2.0
    assert cell.error["ename"] == "KeyboardInterrupt"
    assert cell.error["traceback"] == ["KeyboardInterrupt: %ts_explain was interrupted."]
