"""The committed tutorial as somebody else opens it: no kernel, no network, any theme."""

from __future__ import annotations

import json

import nbformat
import pytest
from lab_page import new_context, picture
from saved_tutorial import TUTORIAL, assert_faithful, cards, exported

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
