"""Live cards in a page that did not start them: loaded again, closed, or a second tab."""

from __future__ import annotations

import json
import time
import urllib.request

import nbformat
import pytest

from truststram_lab.sandbox.state import read_state

SIGN_IN = "%load_ext truststram_lab\n%ts_login --sandbox"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
STOP = "application/vnd.truststram.stop+json"
#: The promise: so long after the press the run is stopped and the prompt is back.
STOP_MS = 2000
ENDED_S = 60.0


def training(name: str, rounds: int = 400) -> str:
    """A cell that trains in short rounds, by default for much longer than a test takes."""
    return f"%ts_federate breast-cancer --clients 3 --rounds {rounds} --epochs 1 --as {name}"


@pytest.fixture
def open_book(open_page, server):
    """Opens a notebook whose first cell is signed in and whose second one waits to be run."""
    opened = []

    def open_one(name: str, source: str):
        lab = open_page().open(server.add_notebook(f"{name}.ipynb", [SIGN_IN, source]))
        opened.append(lab)
        lab.execute(0).finish()
        lab.save()
        return lab

    yield open_one
    for lab in opened:
        lab.page.evaluate("live.notebook()?.sessionContext.shutdown()")
        lab.page.close()


def begin(lab, cell_index: int = 1):
    """The second cell runs, and is two rounds on."""
    cell = lab.execute(cell_index)
    cell.record()
    cell.until_round(2)
    return cell


def followed(lab, cell_index: int = 1, rounds: int = 3):
    """The cell as the page shows it now, so many rounds later."""
    cell = lab.cell(cell_index)
    cell.outputs.filter(has_text="round ").first.wait_for()
    cell.record()
    cell.until_round(cell.record_so_far["rounds"][-1] + rounds)
    return cell


def press_stop(cell) -> None:
    """With a key; the run is stopped and the prompt is back in time."""
    cell.stop_button.focus()
    cell.lab.page.keyboard.press("Enter")
    cell.until_text("was stopped")
    cell.finish()
    cell.lab.until_idle()
    record = cell.record_so_far
    assert record["saidStopped"] - record["lastInput"] <= STOP_MS, record
    assert record["idle"] - record["lastInput"] <= STOP_MS, record


def saved(server, name: str) -> list[dict]:
    """The outputs in the file."""
    book = nbformat.read(server.root / f"{name}.ipynb", as_version=4)
    return [output for cell in book.cells for output in cell.get("outputs", [])]


def assert_nothing_live_is_left(server, lab, name: str) -> None:
    lab.save()
    outputs = saved(server, name)
    assert any("was stopped" in json.dumps(output) for output in outputs)
    for output in outputs:
        assert "truststram" not in output.get("metadata", {})
        assert WIDGET_VIEW not in output.get("data", {})
        assert STOP not in output.get("data", {})


def number(cell) -> str:
    """What stands in front of the cell."""
    return cell.lab.page.evaluate(
        "index => live.notebook().content.widgets[index].inputArea.promptNode.innerText",
        cell.index,
    )


def test_a_card_that_was_saved_in_mid_run_goes_on_and_its_stop_works(open_book, server):
    lab = open_book("saved", training("saved"))
    begin(lab)
    lab.reload()
    assert any(
        "truststram" in output["metadata"]
        for output in saved(server, "saved")
        if "metadata" in output
    )
    cell = followed(lab)
    assert number(cell) == "[*]:"
    assert "Loading widget" not in cell.text
    assert "model not found" not in cell.text
    assert cell.stop_button.count() == 1
    lab.picture("reload-saved")
    press_stop(cell)
    # What the cell says besides is there as well, as if the page had never been away.
    assert "RunStoppedError" in cell.text
    assert number(cell) == "[2]:"
    lab.picture("reload-saved-stopped")
    assert_nothing_live_is_left(server, lab, "saved")


def test_a_card_that_was_not_saved_comes_back_to_its_cell(open_book, server):
    lab = open_book("unsaved", training("unsaved"))
    begin(lab)
    lab.reload(save=False)
    assert not any(STOP in output.get("data", {}) for output in saved(server, "unsaved"))
    cell = followed(lab)
    assert lab.cell(0).text.count("round ") == 0
    lab.picture("reload-unsaved")
    press_stop(cell)
    assert_nothing_live_is_left(server, lab, "unsaved")


def test_a_page_that_is_loaded_twice_follows_still(open_book):
    lab = open_book("twice", training("twice"))
    begin(lab)
    lab.reload()
    followed(lab)
    lab.reload()
    press_stop(followed(lab))


def test_a_cell_that_is_run_again_after_a_reload_shows_only_its_new_run(open_book):
    lab = open_book("again", training("again"))
    begin(lab)
    lab.reload()
    cell = followed(lab)
    lab.execute(1)
    lab.command("notebook:interrupt-kernel")
    cell.until_text("Run again-2")
    cell.record()
    cell.until_round(2)
    assert "again-1" not in cell.text
    assert number(cell) == "[*]:"
    assert cell.text.count("RunStoppedError") == 0
    press_stop(cell)


def test_a_second_tab_shows_the_run_live_and_may_stop_it(open_book, open_page):
    lab = open_book("shared", training("shared"))
    second = open_page().open("shared.ipynb")
    first_cell = begin(lab)
    cell = followed(second)
    assert second.page.evaluate("live.notebook().context.model.dirty") is False
    second.picture("reload-second-tab")
    cell.stop_button.focus()
    second.page.keyboard.press("Enter")
    cell.until_text("was stopped")
    first_cell.finish()
    assert "was stopped" in first_cell.text
    # Nothing of another page's cell keeps this tab from being closed.
    assert second.page.evaluate("live.notebook().context.model.dirty") is False
    # Run again in the first tab: the second one shows the new run and not the one before.
    begin(lab)
    again = followed(second)
    assert "shared-2" in again.text
    assert "shared-1" not in again.text
    lab.command("notebook:interrupt-kernel")
    again.until_text("was stopped")
    second.page.close()


def until_inserted(lab, source: str) -> None:
    lab.page.wait_for_function(
        "source => live.notebook().content.activeCell.model.sharedModel.getSource() === source",
        arg=source,
    )


def run_on_platform(home, name: str) -> dict:
    state = read_state(home)
    assert state is not None
    address = f"{state.url}/api/v1/runs/{name}"
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {state.api_key}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict = json.load(answer)
    return found


def test_a_card_whose_run_ended_while_the_page_was_closed_says_so(open_book, shared_home, server):
    lab = open_book("away", training("away", rounds=25))
    begin(lab)
    lab.save()
    lab.page.goto("about:blank")
    deadline = time.monotonic() + ENDED_S
    while (run_on_platform(shared_home, "away-1").get("report") or {}).get("pooled") is None:
        assert time.monotonic() < deadline
        time.sleep(0.5)

    lab.page.goto(server.address("away.ipynb"))
    lab.ready()
    cell = lab.cell(1)
    cell.until_text("Ended: completed. %ts_runs away-1 shows it.")
    assert cell.stop_button.count() == 0
    for theme in ("light", "dark"):
        lab.theme(theme)
        lab.picture(f"reload-ended-{theme}")
        assert lab.page.evaluate("checks.lowContrast('.jp-OutputArea-output')") == []
    insert = lab.page.get_by_role("button", name="Insert a cell: %ts_runs away-1")
    insert.focus()
    lab.page.keyboard.press("Enter")
    until_inserted(lab, "%ts_runs away-1")
    shown = lab.execute(2)
    shown.finish()
    assert "round 25/25" in shown.text


def test_stop_interrupts_the_kernel_when_the_jupyter_server_finds_no_platform(open_book):
    lab = open_book("offline", training("offline"))
    begin(lab)
    lab.reload()
    cell = followed(lab)
    lab.page.route("**/truststram/platform/**", lambda route: route.abort())
    press_stop(cell)
    assert "RunStoppedError" in cell.text


def test_a_run_in_the_background_goes_on_in_a_reloaded_page_while_other_cells_run(open_book):
    source = f"run = {training('behind')} --background\nrun"
    lab = open_book("behind", source)
    cell = begin(lab)
    lab.reload()
    lab.run("print('something', 'else')", wait=True)
    cell = followed(lab)
    assert number(cell) == "[2]:"
    cell.stop_button.click()
    cell.until_text("was stopped")
    lab.run("run.wait", wait=True)


def test_without_a_platform_a_run_in_the_background_says_which_cell_stops_it(open_book):
    source = f"run = {training('alone')} --background\nrun"
    lab = open_book("alone", source)
    cell = begin(lab)
    lab.page.route("**/truststram/platform/**", lambda route: route.abort())
    cell.stop_button.click()
    cell.until_text("Stop: %ts_runs alone-1 stop")
    lab.picture("reload-no-platform")
    lab.page.get_by_role("button", name="Insert a cell: %ts_runs alone-1 stop").click()
    until_inserted(lab, "%ts_runs alone-1 stop")
    lab.execute(2).finish()
    cell.until_text("was stopped")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_button_is_reached_with_tab_and_nothing_is_wrong_with_it(open_book, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    lab = open_book(f"keys-{theme}", training(f"keys-{theme}"))
    lab.theme(theme)
    cell = begin(lab)
    cell.stop_button.wait_for()
    for _ in range(60):
        if on_stop(lab):
            break
        lab.page.keyboard.press("Tab")
    before = cell.record_so_far["rounds"][-1]
    cell.until_round(before + 3)
    # The card moved three times, and the focus did not.
    assert on_stop(lab)
    found = axe.Axe().run(lab.page, context=".jp-OutputArea-output").response
    assert [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ] == []
    assert lab.page.evaluate("checks.lowContrast('.jp-OutputArea-output')") == []
    assert lab.page.evaluate("checks.blank('.jp-OutputArea-output')") == []
    lab.picture(f"reload-button-{theme}")
    lab.page.keyboard.press("Space")
    cell.until_text("was stopped")
    cell.finish()


def on_stop(lab) -> bool:
    """Whether the keyboard's focus is on a visible Stop."""
    found: bool = lab.page.evaluate(
        "document.activeElement?.matches('.ts-stop button')"
        " && document.activeElement.innerText === 'Stop'"
        " && document.activeElement.checkVisibility()"
    )
    return found
