"""The committed tutorial as somebody else opens it: no kernel, no network, any theme."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from lab_page import PICTURES, LabPage, new_context, picture
from saved_tutorial import TUTORIAL, assert_faithful, cards, exported

README = Path(__file__).parents[2] / "README.md"
CARD_LIMIT = 50_000
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "untrusted"])
def test_a_saved_notebook_reads_the_same_without_kernel_and_network(
    open_page, server, elsewhere, trusted
):
    name = "trusted" if trusted else "untrusted"
    lab = open_page().open(
        server.add_saved(f"{name}.ipynb", TUTORIAL, trusted=trusted), kernel=False
    )
    assert lab.page.evaluate("live.trusted()") is trusted
    lab.page.set_viewport_size({"width": 1100, "height": 3200})
    for theme in ("light", "dark"):
        lab.theme(theme)
        lab.picture(f"saved-{name}-{theme}")
        assert_faithful(lab.page)
        lab.picture(f"saved-{name}-{theme}-unfolded")
        lab.page.evaluate("checks.fold('.jp-OutputArea-output')")
    assert elsewhere == []
    lab.page.close()


def test_the_readmes_picture_shows_the_tutorials_cells_and_says_what_is_in_them(
    browser, elsewhere, server, tmp_path
):
    book = nbformat.read(TUTORIAL, as_version=4)
    book.cells = [cell for cell in book.cells if cell.cell_type == "code"]
    nbformat.write(book, tmp_path / "cells.ipynb")
    context = new_context(
        browser, elsewhere, viewport={"width": 840, "height": 2000}, device_scale_factor=1.4
    )
    lab = LabPage(server, context).open(
        server.add_saved("readme.ipynb", tmp_path / "cells.ipynb", trusted=True), kernel=False
    )
    lab.theme("light")
    cells = lab.page.locator(".jp-Notebook .jp-Cell")
    cells.nth(2).scroll_into_view_if_needed()
    boxes = [cells.nth(place).bounding_box() for place in (0, 2)]
    # The picture is kept beside the tutorial, as notebooks/three_cells.png.
    lab.page.screenshot(
        path=PICTURES / "three_cells.png",
        clip={
            "x": boxes[0]["x"],
            "y": boxes[0]["y"],
            "width": boxes[0]["width"],
            "height": boxes[1]["y"] + boxes[1]["height"] - boxes[0]["y"],
        },
    )
    alt = re.search(r"!\[([^]]+)\]\(notebooks/three_cells.png\)", README.read_text())[1]
    told = re.findall(r"\d+(?:\.\d+)?(?: %)?", alt)
    assert len(told) >= 4
    seen = lab.page.locator(".jp-Notebook").inner_text()
    assert [number for number in told if number not in seen] == []
    context.close()


def test_an_exported_page_reads_the_same(browser, tmp_path):
    empty = tmp_path / "empty.ipynb"
    book = nbformat.read(TUTORIAL, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbformat.write(book, empty)

    asked: list[list[str]] = []
    for source in (empty, TUTORIAL):
        asked.append([])
        context = new_context(browser, asked[-1], viewport={"width": 1100, "height": 3200})
        page = context.new_page()
        page.goto(exported(source, tmp_path).as_uri())
        if source == TUTORIAL:
            picture(page, "saved-exported")
            assert_faithful(page)
            picture(page, "saved-exported-unfolded")
        context.close()
    # nbconvert's own page asks for its scripts; the outputs ask for nothing more.
    assert sorted(set(asked[1])) == sorted(set(asked[0]))


def test_a_saved_card_is_small_and_needs_no_widget():
    assert "widgets" not in nbformat.read(TUTORIAL, as_version=4).metadata
    assert len(cards()) >= 3
    for card in cards():
        assert WIDGET_VIEW not in card
        assert len(json.dumps(card, ensure_ascii=False).encode()) < CARD_LIMIT
