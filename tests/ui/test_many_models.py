"""A panel with a thousand models draws what is in view, and reaches all of them."""

from __future__ import annotations

import pytest

from truststram_lab import TrustStramClient, sandbox

PANEL = "#truststram-lab-panel"
MODELS = 1000
#: Of style and source: the lowest row, and what is drawn beyond both edges.
LOWEST_PX, BEYOND_PX = 24, 200


@pytest.fixture(scope="module")
def panel(open_page, server):
    sandbox.ensure()
    client = TrustStramClient(environment="sandbox")
    for number in range(MODELS):
        client.models.create(f"model-{number:04}")
    lab = open_page().open(server.add_notebook("many.ipynb", ["# many models"]))
    lab.command("truststram-lab:show")
    found = lab.page.locator(PANEL)
    found.get_by_role("row", name=f"Model model-{MODELS - 1:04}, ").wait_for()
    return found


def test_all_models_are_reached_and_few_are_drawn(panel):
    grid = panel.locator(".ts-grid")
    limit = (grid.evaluate("node => node.clientHeight") + 2 * BEYOND_PX) / LOWEST_PX + 3
    assert limit < 100
    drawn = []
    while True:
        drawn.append(panel.get_by_role("row").count())
        if panel.get_by_role("row", name="Model model-0000, ").count():
            break
        before = grid.evaluate("node => [node.scrollTop, node.scrollHeight]")
        grid.evaluate("node => { node.scrollTop += node.clientHeight; }")
        panel.page.wait_for_function(
            "([selector, before]) => { const node = document.querySelector(selector);"
            " return node.scrollTop !== before[0] || node.scrollHeight !== before[1]; }",
            arg=[f"{PANEL} .ts-grid", before],
        )
    assert len(drawn) > 10
    assert max(drawn) <= limit
    assert int(grid.get_attribute("aria-rowcount")) > MODELS


def test_the_keyboard_goes_from_one_end_to_the_other(panel):
    panel.get_by_role("row", name="Model model-0000, ").focus()
    for key, row in (("End", "Federations"), ("Home", "Runs")):
        panel.page.keyboard.press(key)
        panel.page.wait_for_function(
            "words => (document.activeElement.ariaLabel ?? '').startsWith(words)"
            " || document.activeElement.textContent.startsWith(words)",
            arg=row if row == "Runs" else "No federations",
        )
