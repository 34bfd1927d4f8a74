"""A front end without widgets: only the kernel's packages are there."""

from __future__ import annotations

import pytest

FALLBACK = "Stop: Kernel > Interrupt"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def extension():
    return False


@pytest.fixture(scope="module")
def disabled_extensions():
    return ("@jupyter-widgets/jupyterlab-manager", "anywidget")


def test_progress_is_live_and_the_way_to_stop_is_written_out(open_page, server):
    lab = open_page().open(server.add_notebook("plain.ipynb", ["# no widgets here"]))
    # With its packages loaded the button would come at once, were there widgets in front.
    lab.run("import anywidget\n%load_ext truststram_lab\n%ts_login --sandbox", wait=True)
    cell = lab.run("%ts_federate breast-cancer --clients 3 --rounds 400 --epochs 1 --as plain")
    cell.record()
    cell.until_round(12)
    assert len(set(cell.record_so_far["rounds"])) >= 3
    assert FALLBACK in cell.text
    assert cell.stop_button.count() == 0
    lab.picture("kernel-only-live")

    lab.command("notebook:interrupt-kernel")
    cell.until_text("RunStoppedError")
    cell.finish()
    lab.until_idle()
    assert FALLBACK not in cell.text
    assert all(WIDGET_VIEW not in output.get("data", {}) for output in cell.saved)
    assert lab.page.evaluate("checks.blank('.jp-OutputArea-output')") == []
    lab.picture("kernel-only-stopped")
