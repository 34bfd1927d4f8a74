"""Predict, and see why."""

from __future__ import annotations

from truststram_lab.exceptions import UsageError

from . import completers
from .command import Line, VerbCall, command
from .json_cell import rows_of_cell
from .parsing import argument

__all__ = ["predict"]


@command(
    "ts_predict",
    argument(
        "model",
        metavar="MODEL",
        complete=completers.model_references,
        help="its name, for what is deployed, or name:version, or name@alias",
    ),
    argument(
        "data",
        metavar="VARIABLE",
        nargs="?",
        complete=completers.rows,
        help="a dict of column to value, a list of them, or a DataFrame",
    ),
    argument("--example", action="store_true", help="predict a row of the model's demo data"),
    argument("--explain", action="store_true", help="add what each column contributes"),
    argument(
        "--class",
        dest="explain_class",
        metavar="LABEL",
        help="explain this class, not the positive or predicted one",
    ),
    summary=(
        "Predict with a deployed model. As a cell magic, %%ts_predict, the cell holds the row:\n"
        "a JSON object of column to value, or a list of such objects."
    ),
    examples=(
        "%ts_predict breast-cancer --example --explain",
        "%ts_predict icu:3 new_patients -o found",
        "%%ts_predict icu --explain",
        '{"age": 71, "heart rate": 118, "ward": "surgical"}',
    ),
    cell=True,
)
def predict(line: Line) -> VerbCall:
    """``%ts_predict`` and ``%%ts_predict``."""
    given = dict(line.given)
    arguments = [given.pop("model")]
    variable = given.pop("data", None)
    if line.cell is not None:
        if variable is not None or "example" in given:
            extra = "--example" if variable is None else variable
            raise UsageError(
                f"The cell holds the row already; leave {extra} out, or write %ts_predict "
                "with one percent sign.",
                field="data",
            )
        arguments.append(rows_of_cell(line.cell))
    elif variable is not None:
        arguments.append(line.scope.variable(variable))
    return VerbCall("predict", tuple(arguments), given)
