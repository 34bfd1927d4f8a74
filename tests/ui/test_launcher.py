"""The launcher's tutorial and the settings' switch, as a person finds them."""

from __future__ import annotations

import json

import nbformat
import pytest
from lab_page import LabPage
from saved_tutorial import TUTORIAL

PANEL = "#truststram-lab-panel"
SIDEBAR = '.jp-SideBar.jp-mod-left .lm-TabBar-tab[data-id="truststram-lab-panel"]'


@pytest.fixture(scope="module")
def page(open_page, server):
    """A JupyterLab without a notebook: the launcher is in front."""
    opened: LabPage = open_page()
    opened.page.goto(server.address("").replace("/lab/tree/", "/lab"))
    opened.page.wait_for_function("window.jupyterapp && window.jupyterapp.restored")
    opened.page.locator(".jp-Launcher").first.wait_for()
    return opened.page


def title() -> str:
    """The tutorial's first heading."""
    first = nbformat.read(TUTORIAL, as_version=4).cells[0].source
    return str(first.splitlines()[0].removeprefix("# ").strip())


def test_the_launchers_card_opens_the_tutorial_in_a_copy(page, server):
    card = page.locator(".jp-LauncherCard").filter(has_text=title())
    assert card.count() == 1
    card.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("live.notebook()?.content?.widgets?.length > 0")
    assert page.evaluate("live.notebook().context.path") == "01_three_cells.ipynb"
    page.get_by_role("heading", name=title()).wait_for()
    copied = json.loads((server.root / "01_three_cells.ipynb").read_text())
    committed = json.loads(TUTORIAL.read_text())
    assert [cell["source"] for cell in copied["cells"]] == [
        cell["source"] for cell in committed["cells"]
    ]


def switch_in_the_settings(page):
    """The panel's checkbox in the settings editor."""
    page.evaluate(
        "() => void jupyterapp.commands.execute('settingeditor:open', {query: 'TrustStram'})"
    )
    switch = page.get_by_role("checkbox", name="Side panel")
    switch.wait_for()
    return switch


def test_the_settings_switch_takes_the_panel_away_and_brings_it_back_at_once(page):
    page.locator(SIDEBAR).wait_for()
    switch = switch_in_the_settings(page)
    assert switch.is_checked()

    switch.uncheck()
    page.locator(SIDEBAR).wait_for(state="detached")
    assert page.locator(PANEL).count() == 0
    assert not page.evaluate("jupyterapp.commands.isEnabled('truststram-lab:show')")

    switch.check()
    page.locator(SIDEBAR).wait_for()
    page.evaluate("() => void jupyterapp.commands.execute('truststram-lab:show')")
    page.locator(PANEL).get_by_text("Sandbox: not running").wait_for()


def test_the_settings_switch_holds_when_the_page_is_loaded_again(page, server):
    switch = switch_in_the_settings(page)
    with page.expect_response(
        lambda answer: "truststram-lab" in answer.url and answer.request.method == "PUT"
    ):
        switch.uncheck()
    page.goto(server.address("").replace("/lab/tree/", "/lab"))
    page.wait_for_function("window.jupyterapp && window.jupyterapp.restored")
    page.locator(".jp-Launcher").first.wait_for()
    page.evaluate("jupyterapp.started")
    assert not page.evaluate("jupyterapp.commands.isEnabled('truststram-lab:show')")
    assert page.locator(SIDEBAR).count() == 0
