"""The first tutorial, executed as ``make demo`` does it, and as it is committed."""

from __future__ import annotations

import html.parser
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "notebooks" / "01_three_cells.ipynb"

CARD_LIMIT = 50_000
#: numbers as people read them: 0.95, 98, +1.40, 10.35
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


class _Words(html.parser.HTMLParser):
    """The text that a browser would show."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag, attrs):
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._hidden:
            self.parts.append(data)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """stdout of the demo, and the notebook that it saved."""
    saved = tmp_path_factory.mktemp("demo") / "executed.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "truststram_lab.cli", "demo", "--save", str(saved)],
        cwd=ROOT,
        env={**os.environ, "TRUSTSTRAM_TOKEN_STORAGE": "memory"},
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, nbformat.read(saved, as_version=4)


def _outputs(notebook):
    return [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "data" in output
    ]


def test_the_demo_prints_the_comparison_the_prediction_and_the_way_on(demo):
    printed = demo[0]
    for words in ("alone", "federated", "pooled", "malignant", "DeepLIFT", "make lab", "round"):
        assert words in printed


def test_every_number_of_the_saved_notebook_is_in_its_html(demo):
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(template_name="basic").from_notebook_node(demo[1])
    words = _Words()
    words.feed(page)
    shown = "".join(words.parts).replace("\u00a0", " ").replace("\u2212", "-")
    numbers = {
        number
        for output in _outputs(demo[1])
        for number in NUMBER.findall(output["data"]["text/plain"])
    }
    assert len(numbers) > 100
    missing = sorted(number for number in numbers if number not in shown)
    assert not missing


@pytest.mark.parametrize("which", ["executed", "committed"])
def test_a_saved_notebook_holds_results_and_nothing_that_needs_a_kernel(demo, which):
    notebook = demo[1] if which == "executed" else nbformat.read(TUTORIAL, as_version=4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code_cells)
    for output in _outputs(notebook):
        assert "application/vnd.jupyter.widget-view+json" not in output["data"]
        assert len(output["data"]["text/html"]) < CARD_LIMIT
        assert output["data"]["text/plain"].strip()
    assert not [o for cell in code_cells for o in cell.outputs if o.output_type == "error"]


def test_the_committed_notebook_is_the_executed_one_but_for_its_outputs(demo):
    committed = nbformat.read(TUTORIAL, as_version=4)
    assert [cell.source for cell in committed.cells] == [cell.source for cell in demo[1].cells]


def test_no_token_is_in_what_is_saved_or_printed(demo):
    for text in (demo[0], nbformat.writes(demo[1]), TUTORIAL.read_text()):
        assert not re.search(r"\bts[ks]_[A-Za-z0-9_-]{20,}", text)
