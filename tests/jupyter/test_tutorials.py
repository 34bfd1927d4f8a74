"""The tutorials are listed and copied into Jupyter's folder, and nothing there is lost."""

from __future__ import annotations

import json
import shutil
import sysconfig
from pathlib import Path

import pytest

import truststram_lab
from truststram_lab._jupyter import tutorials as module

NAME = "01_three_cells"
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def test_the_first_tutorial_is_listed_by_its_heading(jupyter):
    listed = jupyter.client().get("tutorials").json()
    assert {
        "name": NAME,
        "title": "Three cells: sign in, train together, understand a prediction",
    } in listed


def test_a_tutorial_is_copied_once_and_never_over_somebodys_work(jupyter):
    client = jupyter.client()
    copy = jupyter.root / f"{NAME}.ipynb"
    assert client.post(f"tutorials/{NAME}").json() == {"path": f"{NAME}.ipynb"}
    original = json.loads((NOTEBOOKS / f"{NAME}.ipynb").read_text())
    copied = json.loads(copy.read_text())
    assert [cell["source"] for cell in copied["cells"]] == [
        "".join(cell["source"]) if isinstance(cell["source"], str) else cell["source"]
        for cell in original["cells"]
    ]
    copy.write_text("my own work")
    assert client.post(f"tutorials/{NAME}").json() == {"path": f"{NAME}.ipynb"}
    assert copy.read_text() == "my own work"


@pytest.mark.parametrize(
    "name", ["02_nothing", "..", "..%2f..%2fREADME", "%2fetc%2fpasswd", "01_three_cells.ipynb"]
)
def test_only_a_listed_name_is_copied(jupyter, name):
    before = sorted(jupyter.root.iterdir())
    refused = jupyter.client().post(f"tutorials/{name}")
    assert refused.status_code in (404, 405)
    assert sorted(jupyter.root.iterdir()) == before


def test_a_misspelt_name_is_told_the_right_one(jupyter):
    refused = jupyter.client().post("tutorials/01_three_cell")
    assert refused.status_code == 404
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["detail"] == (
        "No tutorial is named '01_three_cell'; did you mean '01_three_cells'?"
    )


def test_an_installed_package_finds_them_in_its_shared_data(tmp_path, monkeypatch):
    monkeypatch.setattr(truststram_lab, "__file__", str(tmp_path / "site" / "t" / "__init__.py"))
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path))
    assert module.tutorials() == []
    folder = tmp_path / "share" / "truststram-lab" / "tutorials"
    folder.mkdir(parents=True)
    shutil.copy(NOTEBOOKS / f"{NAME}.ipynb", folder)
    (folder / "draft.ipynb").write_text("{}")
    assert [one.name for one in module.tutorials()] == [NAME]
