"""The three cells in JupyterLab, live: seen, stopped, left alone and found again."""

from __future__ import annotations

import os
import signal

import pytest

from truststram_lab.sandbox.state import read_state

SIGN_IN = "%load_ext truststram_lab\n%ts_login --sandbox"
#: The promise: so long after the press the run is stopped and the prompt is back.
STOP_MS = 2000


def long_run(name: str, more: str = "") -> str:
    """A cell that trains for much longer than a test takes, in short rounds."""
    return f"%ts_federate breast-cancer --clients 3 --rounds 400 --epochs 1 --as {name} {more}"


@pytest.fixture(scope="module")
def lab(open_page, server):
    """A notebook that is signed in."""
    page = open_page().open(server.add_notebook("journey.ipynb", ["# the three cells"]))
    assert "Signed in" in page.run(SIGN_IN, wait=True).text
    return page


@pytest.fixture(scope="module")
def second(open_page, server):
    """Another notebook, with a kernel of its own, signed in to the same sandbox."""
    page = open_page().open(server.add_notebook("second.ipynb", ["# somebody else's view"]))
    page.run(SIGN_IN, wait=True)
    return page


def test_the_three_cells_run_and_rounds_are_seen_live(lab):
    federate = lab.run("%ts_federate breast-cancer --clients 5 --rounds 10")
    predict = lab.run("%ts_predict breast-cancer --example --explain")
    federate.record()
    federate.until_round(3)
    lab.picture("journey-live")
    predict.finish()
    assert not federate.error + predict.error
    rounds = federate.record_so_far["rounds"]
    assert len(set(rounds)) >= 3
    assert rounds == sorted(rounds)
    for words in ("alone", "federated", "pooled", "round 10/10"):
        assert words in federate.text
    assert "malignant" in predict.text
    assert federate.stop_button.count() == 0
    lab.picture("journey-done")


def assert_stopped_in_time(cell) -> None:
    """The card says so, the kernel is idle, and the sentence names the way to go on."""
    cell.until_text("RunStoppedError")
    cell.finish()
    cell.lab.until_idle()
    record = cell.record_so_far
    assert record["saidStopped"] - record["lastInput"] <= STOP_MS, record
    assert record["idle"] - record["lastInput"] <= STOP_MS, record
    assert "resume" in cell.text


def test_the_cards_button_stops_with_a_key_while_the_cell_blocks_the_kernel(lab):
    cell = lab.run(long_run("by-button"))
    cell.record()
    cell.until_round(2)
    cell.stop_button.focus()
    lab.page.keyboard.press("Enter")
    assert_stopped_in_time(cell)
    lab.picture("journey-stopped-by-button")


def test_kernel_interrupt_in_the_menu_stops_the_run(lab):
    cell = lab.run(long_run("by-menu"))
    cell.record()
    cell.until_round(2)
    lab.page.locator(".lm-MenuBar-item").filter(has_text="Kernel").click()
    lab.page.locator(".lm-Menu-item").filter(has_text="Interrupt Kernel").click()
    assert_stopped_in_time(cell)
    lab.picture("journey-stopped-by-menu")


def test_the_one_stop_of_a_sweep_ends_its_run_and_begins_no_other(lab):
    cell = lab.run(
        "%ts_federate breast-cancer --clients 3 --epochs 1 --as swept --sweep rounds=2,400,3"
    )
    cell.record()
    cell.until_text("run 2 of 3, rounds=400, round")
    lab.page.evaluate(
        "index => live.notebook().content.widgets[index].node.scrollIntoView()", cell.index
    )
    lab.picture("journey-sweep-live")
    cell.stop_button.focus()
    lab.page.keyboard.press("Enter")
    cell.until_text("Stopped: nothing was deployed")
    cell.finish()
    lab.until_idle()
    assert cell.stop_button.count() == 0
    assert "swept-2, stopped" in cell.text
    assert "swept-3" not in cell.text
    assert cell.text.count("Sweep: 2 runs of 3") == 1
    lab.picture("journey-sweep-stopped")


def test_a_reloaded_page_finds_its_background_run_going_on(lab):
    cell = lab.run(long_run("reloaded", "--background"))
    cell.record()
    cell.until_round(2)
    lab.reload()

    watch = lab.run("%ts_runs reloaded-1 watch")
    watch.record()
    watch.until_round(4)
    lab.picture("journey-reloaded-background")
    watch.stop_button.focus()
    lab.page.keyboard.press("Enter")
    watch.finish()
    assert "was stopped" in watch.text


def test_a_run_whose_page_was_reloaded_is_live_in_another_notebook(lab, second):
    cell = lab.run(long_run("blocking"))
    cell.record()
    cell.until_round(2)
    lab.reload()
    lab.picture("journey-reloaded")

    watch = second.run("%ts_runs blocking-1 watch")
    watch.record()
    first = watch.lab.page.evaluate("live.recorded().rounds.at(-1) ?? 0")
    watch.until_round(first + 3)
    second.picture("journey-watched-elsewhere")
    watch.stop_button.focus()
    second.page.keyboard.press("Enter")
    watch.finish()
    assert "was stopped" in watch.text
    # The kernel that trained it has its prompt back as well.
    lab.until_idle()
    assert "the prompt is back" in lab.run("print('the prompt', 'is back')", wait=True).text


def test_a_run_survives_the_platforms_sudden_death(lab, shared_home):
    cell = lab.run("%ts_federate breast-cancer --clients 3 --rounds 12 --epochs 1 --as killed")
    cell.record()
    cell.until_round(3)
    former = read_state(shared_home)
    assert former is not None
    os.kill(former.pid, signal.SIGKILL)
    cell.finish()
    assert not cell.error
    assert "round 12/12" in cell.text
    # Short rounds may pass between two updates; none is shown twice, and none is lost.
    rounds = cell.record_so_far["rounds"]
    assert rounds == sorted(set(rounds))
    assert rounds[-1] == 12
    told = lab.run(
        "run = %ts_runs killed-1\nprint([each.number for each in run.snapshot().report.history])",
        wait=True,
    )
    assert str(list(range(1, 13))) in told.text
    now = read_state(shared_home)
    assert now is not None
    assert now.pid != former.pid
    lab.picture("journey-platform-killed")


def test_a_restarted_kernel_finds_the_run_again(lab):
    cell = lab.run(long_run("orphan"))
    cell.record()
    cell.until_round(2)
    lab.page.evaluate("live.notebook().sessionContext.restartKernel()")
    lab.until_idle()
    lab.run(SIGN_IN, wait=True)

    watch = lab.run("%ts_runs orphan-1 watch")
    watch.until_text("orphan-1")
    lab.picture("journey-restarted")
    # The restart interrupts the cell before it ends the kernel, so most often the run is at
    # rest and the watching over; a kernel that died at once leaves a run to look away from.
    lab.command("notebook:interrupt-kernel")
    watch.finish()
    lab.until_idle()

    resumed = lab.run("%ts_runs orphan-1 resume")
    resumed.record()
    resumed.until_round(5)
    lab.picture("journey-resumed")
    lab.command("notebook:interrupt-kernel")
    resumed.until_text("RunStoppedError")
    resumed.finish()
