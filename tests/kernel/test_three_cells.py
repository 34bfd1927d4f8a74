"""Sign in, federate, predict: three cells in a real kernel against a real sandbox."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from truststram_lab.preprocessing.demo import load_demo

pytestmark = pytest.mark.kernel

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

SIGN_IN = "%load_ext truststram_lab\n%ts_login --sandbox"
FEDERATE = "%ts_federate breast-cancer --clients 3 --rounds 2 --epochs 1"


def example_row() -> dict[str, Any]:
    demo = load_demo("breast-cancer")
    row = demo.frame.drop(columns=[demo.target]).iloc[0]
    return {str(name): float(value) for name, value in row.items()}


def predict(row: Any) -> str:
    return "%%ts_predict breast-cancer --explain\n" + (
        row if isinstance(row, str) else json.dumps(row, indent=1)
    )


@pytest.fixture(scope="module")
def three(notebook):
    """The three cells, run once."""
    return [notebook.run(code) for code in (SIGN_IN, FEDERATE, predict(example_row()))]


def test_the_three_cells_sign_in_federate_and_explain(three):
    signed_in, federated, predicted = three
    assert "sandbox" in signed_in.text
    for word in ("alone", "federated", "pooled"):
        assert word in federated.html
        assert word in federated.text
    assert "malignant" in predicted.text
    assert "worst radius" in predicted.html


def test_a_run_is_shown_once_in_its_cell_and_again_when_asked_for(three, notebook):
    _, federated, _ = three
    assert federated.html.count("<table") == federated.outputs[0]["data"]["text/html"].count(
        "<table"
    )
    assert len([o for o in federated.outputs if o["data"]["text/plain"].strip()]) == 1
    assigned = notebook.run("run = %ts_runs breast-cancer-1\nrun")
    assert "federated" in assigned.html


def test_every_cell_can_be_run_again(three, notebook):
    for code in (SIGN_IN, FEDERATE, predict(example_row())):
        notebook.run(code)
    assert "breast-cancer-2" in notebook.run("%ts_runs").text


def test_the_result_is_stored_and_returned(three, notebook):
    cell = notebook.run(
        "found = %ts_predict breast-cancer --example -o stored\n"
        "assert stored is found\n"
        "print(found.label, sorted(found.probabilities))"
    )
    assert "['benign', 'malignant']" in cell.text


def test_a_variable_can_be_predicted(three, notebook):
    row = json.dumps(example_row())
    cell = notebook.run(f"row = {row}\n%ts_predict breast-cancer row")
    assert "malignant" in cell.text


def test_lists_are_shown(three, notebook):
    assert "breast-cancer" in notebook.run("%ts_models").html
    assert "breast-cancer" in notebook.run("%ts_models breast-cancer").html
    assert "breast-cancer-1" in notebook.run("%ts_runs").html
    assert "127.0.0.1" in notebook.run("%ts_sandbox").text
    assert "sandbox" in notebook.run("%ts").text
    assert "python" in notebook.run("%ts doctor").text


def test_the_python_of_a_command_runs(three, notebook):
    cell = notebook.run("%ts_predict breast-cancer --example --as-python")
    again = notebook.run(cell.outputs[0]["text"])
    assert "malignant" in again.text


def test_help_is_there_before_and_after_the_name(three, notebook):
    assert "Examples:" in notebook.run("%ts_federate --help").text
    notebook.client.inspect("%ts_federate", 8)
    reply = notebook.client.get_shell_msg(timeout=30)
    assert "--clients" in reply["content"]["data"]["text/plain"]


def test_tab_offers_flags_models_runs_data_sets_and_columns(three, notebook):
    notebook.run("import pandas as pd\npatients = pd.DataFrame({'heart rate': [80], 'died': [0]})")
    assert notebook.complete("%ts_federate breast-cancer --rou") == [
        "%ts_federate breast-cancer --rounds"
    ]
    assert notebook.complete("x = %ts_federate br") == ["x = %ts_federate breast-cancer"]
    assert notebook.complete("%ts_federate pat") == ["%ts_federate patients"]
    assert notebook.complete("%ts_federate patients --target he") == [
        "%ts_federate patients --target 'heart rate'"
    ]
    notebook.complete("%ts_predict b")  # the platform may take longer than typing waits
    assert notebook.complete("%ts_predict b") == ["%ts_predict breast-cancer"]
    notebook.complete("%ts_runs b")
    assert "%ts_runs breast-cancer-1" in notebook.complete("%ts_runs b")


def row_with(**changes: Any) -> str:
    return predict({**example_row(), **changes})


def row_without(name: str) -> str:
    row = example_row()
    del row[name]
    return predict(row)


def row_renamed(old: str, new: str) -> str:
    row = example_row()
    row[new] = row.pop(old)
    return predict(row)


TABLE = """
import pandas as pd
patients = pd.DataFrame({
    "age": range(60),
    "heart rate": [80 + n % 7 for n in range(60)],
    "ward": ["a"] * 30 + ["b"] * 30,
    "died": [n % 2 for n in range(30)] + [0] * 30,
})
"""

MISTAKES = {
    "unknown model": (
        "%ts_predict brest-cancer --example",
        "ModelNotFoundError",
        ["breast-cancer"],
    ),
    "unknown run": ("%ts_runs brest-cancer-1", "RunNotFoundError", ["breast-cancer-1"]),
    "unknown data": ("%ts_federate brest-cancer", "NotFoundError", ["breast-cancer"]),
    "flag typo": (
        "%ts_federate breast-cancer --client 5",
        "UsageError",
        ["--client is not a flag of %ts_federate; did you mean --clients?"],
    ),
    "broken JSON": (
        predict('{"mean radius": 1,\n "mean texture" 2}'),
        "InvalidInputError",
        ["line 3, column 17", '\n   "mean texture" 2}\n', "\n" + " " * 18 + "^"],
    ),
    "the same column twice": (
        predict('{"mean radius": 1, "mean radius": 2}'),
        "InvalidInputError",
        ["'mean radius' is given twice", "^"],
    ),
    "missing feature": (row_without("mean radius"), "InvalidInputError", ["mean radius"]),
    "extra feature": (row_with(shoe_size=43), "InvalidInputError", ["shoe_size"]),
    "misspelt feature": (
        row_renamed("mean radius", "mean raduis"),
        "InvalidInputError",
        ["mean raduis", "did you mean 'mean radius'"],
    ),
    "text for a number": (
        row_with(**{"mean radius": "large"}),
        "InvalidInputError",
        ["mean radius", "large"],
    ),
    "unknown target": (
        "%ts_federate patients --target outcome",
        "InvalidInputError",
        ["'outcome'", "age", "heart rate", "ward", "died"],
    ),
    "misspelt target": (
        "%ts_federate patients --target dead",
        "InvalidInputError",
        ["'dead'", "did you mean 'died'"],
    ),
    "no target": ("%ts_federate patients", "InvalidInputError", ["--target", "heart rate"]),
    "a site with one class": (
        "%ts_federate patients --target died --by ward",
        "InvalidInputError",
        ["b", "--allow-one-class"],
    ),
    "more sites than rows": (
        "%ts_federate patients --target died --clients 1000",
        "InvalidInputError",
        ["1000", "60"],
    ),
    "no rounds": ("%ts_federate breast-cancer --rounds 0", "InvalidInputError", ["rounds is 0"]),
    "unconfirmed reset": ("%ts_sandbox reset", "UsageError", ["%ts_sandbox reset --yes"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_with_the_way_out(three, notebook, mistake):
    notebook.run(TABLE)
    code, ename, fragments = MISTAKES[mistake]
    cell = notebook.run(code, fails=True)
    assert cell.error is not None, cell.text
    assert_one_sentence(cell, ename)
    for fragment in fragments:
        assert fragment in "\n".join(cell.error["traceback"])


def assert_one_sentence(cell, ename: str) -> None:
    assert cell.error["ename"] == ename, cell.text
    assert cell.reply["status"] == "error"  # Run All stops here
    assert len(cell.error["traceback"]) == 1
    (text,) = cell.error["traceback"]
    assert "Traceback" not in text
    assert len(text.splitlines()) <= 8  # a usage is the longest


def test_federating_before_signing_in_says_how_to_sign_in(three, open_notebook):
    fresh = open_notebook()
    fresh.run("%load_ext truststram_lab")
    for code in ("%ts_federate breast-cancer", "%ts_runs", "%ts_predict breast-cancer --example"):
        cell = fresh.run(code, fails=True)
        assert_one_sentence(cell, "NotSignedInError")
        assert "%ts_login --sandbox" in cell.text
    assert "%ts_login --sandbox" in fresh.run("%ts").text


def test_zz_nothing_that_was_published_holds_a_secret_or_a_dead_widget(three, notebook, kernel_env):
    state = json.loads((Path(kernel_env["TRUSTSTRAM_HOME"]) / "sandbox.json").read_text())
    published = json.dumps([m["content"] for m in notebook.messages], default=str)
    assert len(state["api_key"]) >= 16
    assert state["api_key"] not in published
    assert "Bearer " not in published
    assert all(WIDGET_VIEW not in o.get("data", {}) for o in notebook.saved())
