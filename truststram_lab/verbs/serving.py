"""Predict with a deployed model, and see why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from truststram_lab.exceptions import InvalidInputError

from . import session as sessions
from .live import follow
from .results import Predictions

if TYPE_CHECKING:
    import pandas as pd

    from truststram_lab.schemas.registry import ModelVersion

__all__ = ["predict"]


def predict(
    model: str,
    data: dict[str, Any] | list[dict[str, Any]] | pd.DataFrame | None = None,
    *,
    example: bool = False,
    explain: bool = False,
    explain_class: str | None = None,
) -> Predictions:
    """Predict one row, or many, with a deployed model.

    A model whose run is still going in this kernel is waited for.

    Args:
        model: ``name`` (what its endpoint serves) or ``name:version``.
        data: a dict of column to value, a list of them, or a DataFrame.
        example: take a row of the demo data that the model was trained on, instead.
        explain: add the contribution of every column.
        explain_class: the class to explain; else the positive, or the predicted one.

    Raises:
        ModelNotFoundError: no such model; the nearest names are in the sentence.
        InvalidInputError: a column is missing, unknown or of another type, by its name.
    """
    session = sessions.require("predicting")
    run = session.active_run(model.partition(":")[0])
    if run is not None:
        follow(run)
    if example == (data is not None):
        raise InvalidInputError(
            "Give the row to predict as JSON, a dict or a DataFrame, or take one of the demo "
            "data with --example; one of the two."
        )
    truth: list[str] = []
    if example:
        data, label = _example(session.client.models.version(*_split(model)))
        truth = [label]
    rows = _rows(data)
    found = session.client.inference.batch_predict(
        model_id=model, data_batch=rows, explain=explain, explain_class=explain_class
    )
    return Predictions(found, truth)


def _split(model: str) -> tuple[str, int | str]:
    name, _, version = model.partition(":")
    return name, int(version) if version.isdigit() else version or "deployed"


def _rows(data: Any) -> list[dict[str, Any]]:
    if isinstance(data, dict):
        return [data]
    if isinstance(data, list):
        rows = data
    elif hasattr(data, "to_dict") and hasattr(data, "columns"):
        rows = data.astype(object).where(data.notna(), None).to_dict(orient="records")
    else:
        raise InvalidInputError(
            f"A {type(data).__name__} is not a row; give a dict of column to value, a list of "
            "them, or a DataFrame."
        )
    if not rows:
        raise InvalidInputError("There is no row to predict; give at least one.")
    return [{str(key): _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    # numpy scalars are not JSON; .item() is their plain value.
    return value.item() if hasattr(value, "item") else value


def _example(version: ModelVersion) -> tuple[dict[str, Any], str]:
    """A held-out-like row of the model's demo data, by the recorded run; and its true label."""
    from truststram_lab.preprocessing.demo import DEMO_NAMES, load_demo

    run_name = version.lineage.run
    session = sessions.require("predicting")
    source = session.client.runs.get(run_name).plan.source if run_name else None
    if source is None or source.kind != "demo" or source.name not in DEMO_NAMES:
        raise InvalidInputError(
            f"{version.model} was not trained on demo data, so there is no example row; "
            f"give one: %%ts_predict {version.model} with a JSON object of "
            f"{len(version.signature.columns)} columns."
        )
    demo = load_demo(source.name)
    names = [column.name for column in version.signature.columns]
    row = _rows(demo.frame.loc[[_EXAMPLE_ROW], names])[0]
    return row, str(demo.frame[demo.target].iloc[_EXAMPLE_ROW])


#: A fixed row, so that re-running a notebook shows the same case.
_EXAMPLE_ROW = 0
