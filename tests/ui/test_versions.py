"""The oldest supported ipykernel and JupyterLab, and Notebook 7: live, stopped, saved."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from environments import NEWEST, NOTEBOOK, OLDEST_KERNEL, OLDEST_LAB, Version, VersionedLab
from lab_page import LabPage
from saved_tutorial import TUTORIAL, assert_faithful
from test_journey import SIGN_IN, assert_stopped_in_time, long_run

ROOT = Path(__file__).parents[2]
PANEL = "#truststram-lab-panel"
EVERY = [NEWEST, OLDEST_KERNEL, OLDEST_LAB, NOTEBOOK]
FRONT_ENDS = [OLDEST_LAB, NOTEBOOK]
WAYS = ["card", "panel", "interrupt"]


def on(versions: list[Version]) -> pytest.MarkDecorator:
    """Run the test on each of these."""
    return pytest.mark.parametrize(
        "version", versions, ids=lambda each: each.id, indirect=True, scope="module"
    )


@pytest.fixture(scope="module")
def version(browser, request) -> Version:
    """The version that the module's server runs at the moment."""
    asked: Version = request.param
    asked.require()
    return asked


@pytest.fixture(scope="module")
def server(version, shared_home, tmp_path_factory) -> Iterator[VersionedLab]:
    started = VersionedLab(tmp_path_factory.mktemp(version.id) / "own", version)
    try:
        yield started.start()
    finally:
        started.stop()


@pytest.fixture(scope="module")
def lab(open_page, server) -> Iterator[LabPage]:
    """A notebook that is signed in, beside the panel."""
    page = open_page().open(server.add_notebook("versions.ipynb", ["# which versions"]))
    assert "Signed in" in page.run(SIGN_IN, wait=True).text
    page.command("truststram-lab:show")
    page.page.locator(PANEL).get_by_text("Sandbox, this computer").wait_for()
    yield page
    page.page.close()


@pytest.fixture(autouse=True)
def _idle_again(request) -> Iterator[None]:
    """What one way did not stop is not left to the next."""
    yield
    if "lab" in request.fixturenames:
        page: LabPage = request.getfixturevalue("lab")
        if page.page.evaluate("live.busy()"):
            page.command("notebook:interrupt-kernel")
            page.until_idle()


def test_the_oldest_that_are_tested_are_the_oldest_that_are_promised():
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for package, version in (("ipykernel", OLDEST_KERNEL), ("jupyterlab", OLDEST_LAB)):
        oldest = next(
            re.findall(r">=([\d.]+)", each)[0] for each in promised if each.startswith(package)
        )
        assert version.pinned == f"{oldest}.0"


def test_notebook_runs_on_the_newest_jupyterlab():
    newest = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"jupyterlab=={NOTEBOOK.pins['jupyterlab']}" in newest


@on([OLDEST_KERNEL, OLDEST_LAB, NOTEBOOK])
def test_what_runs_is_what_is_pinned(lab, version):
    assert lab.run(version.tells, wait=True).text.strip() == version.pinned
    if version is not OLDEST_KERNEL:
        assert lab.page.evaluate("jupyterapp.version") == version.pinned


@on(EVERY)
def test_rounds_are_live_in_the_card_and_in_the_panel(lab, version):
    name = f"live-{version.id}"
    cell = lab.run(f"%ts_federate breast-cancer --clients 3 --rounds 20 --epochs 1 --as {name}")
    cell.record()
    panel = lab.page.locator(PANEL)
    shown = panel.get_by_role("row", name=f"Run {name}-1")
    shown.get_by_role("progressbar").wait_for()
    cell.until_round(3)
    lab.picture(f"versions-{version.id}-live")
    cell.finish()
    assert not cell.error
    rounds = cell.record_so_far["rounds"]
    assert len(set(rounds)) >= 3
    assert rounds == sorted(rounds)
    panel.get_by_role("row", name=f"Run {name}-1, done").wait_for()
    assert lab.page.evaluate("checks.blank('.jp-OutputArea-output')") == []


@on(EVERY)
@pytest.mark.parametrize("way", WAYS)
def test_a_later_run_is_stopped_while_its_cell_blocks_the_kernel(lab, version, way):
    name = f"{way}-{version.id}"
    cell = lab.run(long_run(name))
    cell.record()
    cell.until_round(2)
    if way == "interrupt":
        lab.page.locator(".lm-MenuBar-item").filter(has_text="Kernel").click()
        lab.page.locator(".lm-Menu-item").filter(has_text="Interrupt Kernel").click()
    else:
        stop = lab.page.locator(PANEL).get_by_role("button", name=f"Stop {name}-1")
        button = cell.stop_button if way == "card" else stop
        button.focus()
        lab.page.keyboard.press("Enter")
    assert_stopped_in_time(cell)
    lab.picture(f"versions-{version.id}-{way}")


@on(FRONT_ENDS)
@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "untrusted"])
def test_a_saved_notebook_reads_the_same(open_page, server, version, trusted):
    name = "trusted" if trusted else "untrusted"
    page = open_page().open(
        server.add_saved(f"{name}.ipynb", TUTORIAL, trusted=trusted), kernel=False
    )
    assert page.page.evaluate("live.trusted()") is trusted
    page.page.set_viewport_size({"width": 1100, "height": 3200})
    for theme in ("light", "dark"):
        page.theme(theme)
        assert_faithful(page.page)
        page.picture(f"versions-{version.id}-{name}-{theme}")
        page.page.evaluate("checks.fold('.jp-OutputArea-output')")
    page.page.close()
