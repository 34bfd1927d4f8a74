"""A live view in a real kernel: updates, the button, and what is saved."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.kernel

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
STOP = "application/vnd.truststram.stop+json"
CELL = "an-id_1"

DEFINED = """
import threading, time
from truststram_lab.widgets import LiveView

class Card:
    def __init__(self, text):
        self.text = text
    def bundle(self):
        return {"text/plain": self.text, "text/html": f"<p>{self.text}</p>"}
"""

#: No test waits as long for the button as people do whose kernel has loaded nothing for it yet.
SET_UP = f"""{DEFINED}
from truststram_lab.widgets import live
live._BUTTON_AFTER_S = 0.0
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
    # The last one takes away what the first one said of its cell.
    assert [(m["content"]["data"]["text/plain"], m["content"]["metadata"]) for m in updates] == [
        ("same", {})
    ]


def test_no_card_is_made_while_nothing_is_new_and_the_last_one_is_the_whole_card(notebook):
    cell = notebook.run("""
made, revision = [], 0
def live():
    made.append(revision)
    return Card(f"live {revision}")
view = LiveView(lambda: Card("whole"), live=live, revision=lambda: revision)
view.show()
view.refresh(force=True)
revision = 1
view.refresh(force=True)
view.refresh(force=True)
print(made)
view.close()
""")
    shown = [o["data"]["text/plain"] for o in cell.outputs if "data" in o]
    assert shown == ["whole"]
    assert "[0, 1]" in cell.text


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
    hint = notebook.until(lambda message: "Interrupt" in str(message["content"].get("data")))
    assert hint["content"]["data"] == {
        "text/plain": "Stop: Kernel > Interrupt",
        "text/html": "<p>Stop: Kernel &gt; Interrupt</p>",
    }
    shown = notebook.until(is_button_view)
    data = shown["content"]["data"]
    # Without widgets it says nothing; the line above it does.
    assert data["text/plain"] == data["text/html"] == ""
    assert STOP not in data

    press(notebook, data[WIDGET_VIEW]["model_id"])

    cell = notebook.finish(key)
    assert "stopped: True" in cell.text
    assert [o["data"]["text/plain"] for o in cell.outputs if "data" in o] == [
        "running",
        "what next",
        "",
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


def test_a_view_of_a_run_tells_our_extension_whose_output_it_is_and_what_it_can_stop(notebook):
    key = execute_in_cell(notebook, SHOW_RUN)
    shown = {}
    while len(shown) < 3:
        content = notebook.until(is_display)["content"]
        shown[content["transient"]["display_id"]] = content
    (card_id, card), (footer_id, footer), (widget_id, widget) = shown.items()
    payload = {"run": "run_1", "name": "icu-1", "interrupt": True}
    place = {"cell": CELL, "count": notebook_count(notebook)}
    assert card["metadata"] == {"truststram": {"view": card_id, **place, "stop": payload}}
    assert footer["metadata"] == {"truststram": {"view": footer_id, **place}}
    assert widget["metadata"] == {"truststram": {"view": widget_id, **place}}
    assert footer["data"][STOP] == payload
    assert footer["data"]["text/plain"] == "Stop: Kernel > Interrupt"
    # The extension shows one button, not two.
    assert widget["data"] == {STOP: {}, "text/plain": "", "text/html": ""}
    button = notebook.until(is_button_view)["content"]
    assert button["metadata"] == widget["metadata"]
    assert button["data"][STOP] == {}

    cell = notebook.finish(key)
    live = [m["content"]["metadata"] for m in published(notebook, card_id)[:-1]]
    assert len(live) >= 3
    assert all(metadata == card["metadata"] for metadata in live)
    for output in cell.outputs:
        assert output["metadata"] == {}
        assert set(output["data"]) == {"text/plain", "text/html"}


SHOW_RUN = """
from types import SimpleNamespace
texts = iter(range(1000))
view = LiveView(
    lambda: Card(f"number {next(texts)}"),
    lambda: None,
    run=SimpleNamespace(id="run_1", name="icu-1"),
)
view.show()
# From another thread, as of a run in the background.
worker = threading.Thread(target=lambda: [view.refresh(force=True) for _ in range(3)])
worker.start()
worker.join()
deadline = time.monotonic() + 60
while view._button is None and time.monotonic() < deadline:
    time.sleep(0.05)
view.close()
"""


def execute_in_cell(notebook, code: str, cell_id: str = CELL) -> str:
    """Execute as JupyterLab does: the request says which cell it is of."""
    session = notebook.client.session
    session.metadata = {"cellId": cell_id}
    key: str = notebook.start(code)
    session.metadata = {}
    return key


def is_display(message: dict[str, Any]) -> bool:
    return message["msg_type"] == "display_data"


def published(notebook, display_id: str) -> list[dict[str, Any]]:
    """Every message of a display, in order."""
    return [
        message
        for message in notebook.messages
        if message["content"].get("transient", {}).get("display_id") == display_id
    ]


def notebook_count(notebook) -> int:
    """The number of the cell that was begun last."""
    begun = [m for m in notebook.messages if m["msg_type"] == "execute_input"]
    count: int = begun[-1]["content"]["execution_count"]
    return count


def test_what_is_no_cells_id_is_not_saved_and_a_view_in_the_background_has_no_number(notebook):
    address = "vscode-notebook-cell:/home/somebody/book.ipynb#W0"
    before = len(notebook.messages)
    key = execute_in_cell(
        notebook,
        """
view = LiveView(lambda: Card("apart"), hint="Stop: elsewhere", waits=False)
view.show()
""",
        address,
    )
    notebook.finish(key)
    notebook.run("view.refresh(force=True)\nview.close()")
    metadata = [
        message["content"]["metadata"]
        for message in notebook.messages[before:]
        if "display" in message["msg_type"]
    ]
    assert [sorted(each.get("truststram", {})) for each in metadata] == [["view"], []]


def test_a_view_that_ended_before_the_button_was_loaded_shows_no_button(open_notebook):
    fresh = open_notebook()
    fresh.run(SET_UP)
    cell = fresh.run("""
view = LiveView(lambda: Card("done"), lambda: None)
view.show()
view.close()
time.sleep(3)
""")
    assert [o["data"]["text/plain"] for o in cell.outputs] == ["done", "", ""]
    assert not any(is_button_view(m) for m in fresh.messages)


def test_what_ends_soon_does_not_load_the_packages_of_the_button(open_notebook):
    fresh = open_notebook()
    cell = fresh.run(f"""{DEFINED}
import sys
view = LiveView(lambda: Card("done"), lambda: None)
view.show()
time.sleep(2)
view.close()
time.sleep(1)
print("anywidget" in sys.modules, any(t.name == "stop button" for t in threading.enumerate()))
""")
    assert [o["text"] for o in cell.outputs if "text" in o] == ["False False\n"]


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
