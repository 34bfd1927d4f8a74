"""The committed tutorial, and what must be seen of it in any page that shows it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

from truststram_lab.render.text import FOLD_MARK

if TYPE_CHECKING:
    from playwright.sync_api import Page

TUTORIAL = Path(__file__).parents[2] / "notebooks" / "01_three_cells.ipynb"
OUTPUTS = ".jp-OutputArea-output"
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


def cards() -> list[dict[str, Any]]:
    """The mimebundles of the tutorial's outputs."""
    book = nbformat.read(TUTORIAL, as_version=4)
    code = (cell for cell in book.cells if cell.cell_type == "code")
    return [output.data for cell in code for output in cell.outputs if "data" in output]


def exported(source: Path, folder: Path) -> Path:
    """A notebook as nbconvert's default HTML page."""
    name = f"{source.stem}.html"
    command = (sys.executable, "-m", "nbconvert", "--to", "html")
    subprocess.run(
        [*command, "--output-dir", folder, "--output", name, source],
        check=True,
        capture_output=True,
        timeout=90,
    )
    return folder / name


def assert_faithful(page: Page) -> None:
    """Every number is seen, nothing is blank, pale or out of reach; folded and unfolded."""
    shown = [_plain(text) for text in page.locator(OUTPUTS).all_inner_texts()]
    assert len(shown) == len(cards())
    for text, card in zip(shown, cards(), strict=True):
        summary = _plain(card["text/plain"]).partition(f"\n{FOLD_MARK}")[0]
        numbers = _NUMBER.findall(summary)
        assert len(numbers) + len(summary) > 20
        assert [number for number in numbers if number not in text] == []
    assert_legible(page)
    unfold(page)
    assert_legible(page)


def assert_legible(page: Page) -> None:
    for check in ("blank", "lowContrast", "outOfReach"):
        assert checked(page, check) == [], check


def unfold(page: Page) -> None:
    """Open every card's details."""
    assert checked(page, "unfold") > 3


def checked(page: Page, check: str) -> Any:
    """What a check in the page finds in the outputs."""
    return page.evaluate(f"selector => checks.{check}(selector)", OUTPUTS)


def _plain(text: str) -> str:
    return text.replace("\u00a0", " ").replace("\u2212", "-")
