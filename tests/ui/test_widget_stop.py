"""The Stop of front ends that have widgets and not our extension."""

from __future__ import annotations

import os
import signal

import pytest

#: A kernel that has used widgets; in any other the button comes once a run has gone on for long.
SIGN_IN = "import anywidget\n%load_ext truststram_lab\n%ts_login --sandbox"
FALLBACK = "Stop: Kernel > Interrupt"


@pytest.fixture(scope="module")
def extension():
    return False


@pytest.fixture
def lab(open_page, server, request):
    page = open_page().open(server.add_notebook(f"{request.node.name}.ipynb", [SIGN_IN]))
    page.execute(0).finish()
    yield page
    page.page.evaluate("live.notebook().sessionContext.shutdown()")
    page.page.close()


def begin(lab, name: str):
    cell = lab.run(f"%ts_federate breast-cancer --clients 3 --rounds 400 --epochs 1 --as {name}")
    cell.record()
    cell.until_round(2)
    cell.stop_button.wait_for()
    return cell


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_way_to_interrupt_is_written_out_above_the_button(lab, theme):
    lab.theme(theme)
    cell = begin(lab, f"both-{theme}")
    hint = cell.outputs.filter(has_text=FALLBACK).bounding_box()
    card = cell.outputs.first.bounding_box()
    button = cell.stop_button.bounding_box()
    assert card["y"] < hint["y"] < button["y"]
    lab.picture(f"widget-stop-{theme}")
    cell.stop_button.click()
    cell.until_text("RunStoppedError")
    cell.finish()
    assert FALLBACK not in cell.text
    assert lab.page.evaluate("checks.blank('.jp-OutputArea-output')") == []


def test_a_press_that_no_kernel_answers_says_what_else_stops_the_run(lab):
    kernel = int(lab.run("import os\nprint(os.getpid())", wait=True).text)
    cell = begin(lab, "silent")
    os.kill(kernel, signal.SIGSTOP)
    try:
        cell.stop_button.click()
        cell.until_text("No kernel answers. Stop: %ts_runs silent-1 stop")
        assert cell.stop_button.is_enabled()
        assert cell.outputs.get_by_role("status").filter(has_text="No kernel answers").is_visible()
        lab.picture("widget-stop-no-answer")
    finally:
        os.kill(kernel, signal.SIGCONT)
    # It was only slow: the press counts all the same.
    cell.until_text("RunStoppedError")
    cell.finish()
    assert "No kernel answers" not in cell.text


def test_a_page_that_is_loaded_in_mid_run_reads_how_to_stop_it(lab):
    cell = begin(lab, "reloaded")
    lab.reload()
    cell = lab.cell(cell.index)
    cell.until_text(FALLBACK)
    lab.picture("widget-stop-reloaded")
    lab.command("notebook:interrupt-kernel")
    lab.until_idle()
