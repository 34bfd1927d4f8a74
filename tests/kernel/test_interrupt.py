"""Stopping a run from the notebook: the prompt is back, nothing is pushed, it can go on."""

from __future__ import annotations

import json
import time

import pytest

pytestmark = pytest.mark.kernel

SIGN_IN = "%load_ext truststram_lab\n%ts_login --sandbox"


class Watcher:
    """Sees a run from another kernel."""

    def __init__(self, notebook) -> None:
        self.notebook = notebook
        notebook.run(SIGN_IN + "\nimport json\nfrom truststram_lab import verbs")

    def state(self, name: str) -> dict[str, object]:
        cell = self.notebook.run(
            f"r = verbs.runs({name!r}).snapshot()\n"
            "print(json.dumps({'status': r.status, 'round': r.round, 'pushed': r.pushed, "
            "'last_event': r.last_event}))"
        )
        return json.loads(cell.outputs[0]["text"])

    def wait_for_round(self, name: str, number: int) -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if name in self.notebook.run("%ts_runs").text:
                state = self.state(name)
                if state["round"] >= number:
                    return
                assert state["status"] in ("statistics", "training"), state
            time.sleep(0.2)
        raise AssertionError(f"{name} did not reach round {number}")


@pytest.fixture(scope="module")
def watcher(open_notebook):
    return Watcher(open_notebook())


@pytest.fixture(scope="module")
def working(notebook, watcher):
    notebook.run(SIGN_IN)
    return notebook


def threads_of_runs(notebook) -> str:
    return notebook.run(
        "import threading\n"
        "print([t.name for t in threading.enumerate() if t.name.startswith('run ')])"
    ).text.strip()


def test_interrupt_stops_a_run_that_resumes_to_its_end(working, watcher):
    key = working.start(
        "%ts_federate breast-cancer --clients 3 --rounds 12 --epochs 2 --as stopped"
    )
    watcher.wait_for_round("stopped-1", 2)
    working.interrupt()
    cell = working.finish(key, timeout_s=20)

    assert cell.error["ename"] == "RunStoppedError"
    assert len(cell.error["traceback"]) == 1
    assert "%ts_runs stopped-1 resume" in cell.text
    assert threads_of_runs(working) == "[]"
    before = watcher.state("stopped-1")
    assert before["status"] == "stopped"
    time.sleep(2)
    assert watcher.state("stopped-1") == before

    resumed = working.run("%ts_runs stopped-1 resume")
    assert "federated" in resumed.text
    after = watcher.state("stopped-1")
    assert (after["status"], after["round"]) == ("completed", 12)
    assert "stopped" in working.run("%ts_predict stopped --example").text


@pytest.mark.parametrize("place", ["LiveView.show", "LiveView.refresh"])
def test_an_interrupt_that_hits_the_view_stops_the_run_as_well(working, watcher, place):
    name = place.rpartition(".")[2]
    working.run(f"""
import truststram_lab.widgets.live as live
original = live.{place}
def interrupted(*_, **__):
    live.{place} = original
    raise KeyboardInterrupt
live.{place} = interrupted
""")
    cell = working.run(f"%ts_federate breast-cancer --rounds 50 --as in-{name}", fails=True)
    assert cell.error["ename"] == "RunStoppedError"
    assert threads_of_runs(working) == "[]"
    assert watcher.state(f"in-{name}-1")["status"] == "stopped"


def test_a_done_run_cannot_be_resumed_and_says_so(working, watcher):
    working.run("%ts_federate breast-cancer --clients 2 --rounds 1 --epochs 1 --as short")
    cell = working.run("%ts_runs short-1 resume", fails=True)
    assert cell.error["ename"] == "ConflictError"
    assert len(cell.error["traceback"]) == 1


def test_a_run_in_the_background_is_shown_live_and_a_prediction_waits_for_it(working, watcher):
    shown = working.run(
        "run = %ts_federate breast-cancer --clients 3 --rounds 4 --as behind --background\nrun"
    )
    # Interrupting the kernel would stop nothing here, so the line says what does.
    assert "Kernel > Interrupt" not in shown.text
    assert any("Stop: %ts_runs behind-1 stop" in json.dumps(m["content"]) for m in working.messages)
    predicted = working.run("%ts_predict behind --example")
    assert "malignant" in predicted.text
    working.run("run.wait(); import time; time.sleep(0.5)")
    assert "pooled" in shown.text


def test_a_run_of_a_killed_kernel_is_resumed_in_another(open_notebook, watcher):
    doomed = open_notebook()
    doomed.run(SIGN_IN)
    doomed.start("%ts_federate breast-cancer --clients 3 --rounds 12 --epochs 2 --as orphan")
    watcher.wait_for_round("orphan-1", 2)
    doomed.manager.shutdown_kernel(now=True)

    resumed = watcher.notebook.run("%ts_runs orphan-1 resume")
    assert "federated" in resumed.text
    assert watcher.state("orphan-1")["status"] == "completed"


def test_an_interrupt_while_torch_is_loading_breaks_nothing(open_notebook):
    fresh = open_notebook()
    fresh.run(SIGN_IN)
    key = fresh.start("%ts_federate breast-cancer --rounds 2 --as early")
    fresh.until(lambda message: "loading torch" in json.dumps(message["content"]))
    fresh.interrupt()
    cell = fresh.finish(key, timeout_s=20)
    assert cell.error["ename"] == "RunStoppedError"
    resumed = fresh.run("%ts_runs early-1 resume")
    assert resumed.error is None
    assert "federated" in resumed.text


def test_an_interrupt_of_contributions_keeps_what_was_counted(working):
    working.run("%ts_federate breast-cancer --clients 12 --rounds 2 --epochs 1 --as taken-apart")
    key = working.start("found = %ts_runs taken-apart-1 contribution --pairs 100000 --tolerance 0")
    time.sleep(4)
    working.interrupt()
    cell = working.finish(key, timeout_s=20)
    assert cell.error is None
    told = working.run(
        "print(found.found.complete, found.found.method, 2 <= found.found.pairs < 100000)"
    )
    assert told.text.strip() == "False permutations True"
    assert "interrupted" in working.run("found").text


def test_one_interrupt_stops_a_sweep_and_what_is_completed_stays(working, watcher):
    key = working.start(
        "swept = %ts_federate breast-cancer --clients 2 --epochs 1 --as swept "
        "--sweep rounds=1,400,2"
    )
    watcher.wait_for_round("swept-2", 2)
    working.interrupt()
    cell = working.finish(key, timeout_s=20)
    assert cell.error is None
    assert "Stopped: nothing was deployed" in cell.text
    told = working.run("print(swept.status, [run.status for run in swept])")
    assert told.text.strip() == "stopped ['completed', 'stopped']"
    assert threads_of_runs(working) == "[]"
    assert "swept-3" not in working.run("%ts_runs").text
