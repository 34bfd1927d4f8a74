"""A live view in a real kernel: updates, the button, and what is saved."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.kernel

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

SET_UP = """
import threading, time
from truststram_lab.widgets import LiveView

class Card:
    def __init__(self, text):
        self.text = text
    def bundle(self):
        return {"text/plain": self.text, "text/html": f"<p>{self.text}</p>"}
"""


def is_button_view(message: dict[str, Any]) -> bool:
    return (
        message["msg_type"] == "update_display_data" and WIDGET_VIEW in message["content"]["data"]
    )


@pytest.fixture(scope="module", autouse=True)
def cards(notebook):
    notebook.run(SET_UP)


def test_a_live_card_is_replaced_in_place_and_ends_as_one_static_output(notebook):
    cell = notebook.run("""
texts = iter(["one", "two", "three", "three"])
view = LiveView(lambda: Card(next(texts)))
view.show()
view.refresh(force=True)
view.refresh(force=True)
view.close()
""")
    assert [o["data"]["text/plain"] for o in cell.outputs] == ["three"]


def test_what_reads_the_same_is_not_published_again_and_the_rate_is_bounded(notebook):
    before = len(notebook.messages)
    notebook.run("""
asked = 0
def card():
    global asked
    asked += 1
    return Card("same")
view = LiveView(card)
view.show()
for _ in range(500):
    view.refresh()
view.refresh(force=True)
view.close()
assert asked < 50, asked
""")
    updates = [m for m in notebook.messages[before:] if m["msg_type"] == "update_display_data"]
    assert updates == []


def test_the_button_stops_what_keeps_the_kernel_busy_and_nothing_of_it_is_saved(notebook):
    key = notebook.start("""
stopped = threading.Event()
view = LiveView(lambda: Card("running"), stopped.set)
view.show()
deadline = time.monotonic() + 60
while not stopped.is_set() and time.monotonic() < deadline:
    time.sleep(0.05)
    view.refresh()
view.close(Card("what next"))
print("stopped:", stopped.is_set())
""")
    shown = notebook.until(is_button_view)
    data = shown["content"]["data"]
    assert data["text/plain"] == "Stop: Kernel > Interrupt"
    assert "Interrupt" in data["text/html"]

    press(notebook, data[WIDGET_VIEW]["model_id"])

    cell = notebook.finish(key)
    assert "stopped: True" in cell.text
    assert [o["data"]["text/plain"] for o in cell.outputs if "data" in o] == [
        "running",
        "what next",
    ]
    assert all(WIDGET_VIEW not in o.get("data", {}) for o in notebook.saved())
    closed = {m["content"]["comm_id"] for m in notebook.messages if m["msg_type"] == "comm_close"}
    assert data[WIDGET_VIEW]["model_id"] in closed


def press(notebook, comm_id: str) -> None:
    """What a front end with widgets sends when the button is pressed: over a subshell."""
    client = notebook.client
    request = client.session.msg("create_subshell_request", {})
    client.control_channel.send(request)
    reply = client.get_control_msg(timeout=30)
    subshell_id = reply["content"]["subshell_id"]
    press = client.session.msg(
        "comm_msg",
        {
            "comm_id": comm_id,
            "data": {"method": "update", "state": {"stopping": True}, "buffer_paths": []},
        },
    )
    press["header"]["subshell_id"] = subshell_id
    client.shell_channel.send(press)


def test_a_view_that_ended_before_the_button_was_loaded_shows_no_button(open_notebook):
    fresh = open_notebook()
    fresh.run(SET_UP)
    cell = fresh.run("""
view = LiveView(lambda: Card("done"), lambda: None)
view.show()
view.close()
time.sleep(3)
""")
    assert [o["data"]["text/plain"] for o in cell.outputs] == ["done", ""]
    assert not any(is_button_view(m) for m in fresh.messages)


def test_a_notebook_that_runs_unattended_gets_no_button_and_no_widget_state(
    kernel_env, monkeypatch
):
    import nbformat
    from nbclient import NotebookClient

    for name, value in kernel_env.items():
        monkeypatch.setenv(name, value)
    run = """
view = LiveView(lambda: Card("going"), lambda: None)
view.show()
time.sleep(3)
view.close()
"""
    cells = [nbformat.v4.new_code_cell(source) for source in (SET_UP, run)]
    book = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(book, kernel_name="python3", timeout=120).execute()
    assert [o["data"]["text/plain"] for o in book.cells[1].outputs] == ["going"]
    assert "widgets" not in book.metadata


def test_a_background_thread_may_refresh_while_later_cells_run(notebook):
    first = notebook.run("""
count = 0
def card():
    return Card(f"count {count}")
background = LiveView(card)
background.show()
def work():
    global count
    for count in range(1, 6):
        background.refresh(force=True)
        time.sleep(0.05)
    background.close()
thread = threading.Thread(target=work)
thread.start()
""")
    second = notebook.run("thread.join()")
    assert first.text == "count 5"
    assert second.outputs == []
