"""Predict with a deployed model, and see why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.federated.preparation import prepare_again
from truststram_lab.preprocessing.demo import load_demo
from truststram_lab.schemas.references import Reference

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
        model: ``name`` (what its endpoint serves), ``name:version`` or ``name@alias``.
        data: a dict of column to value, a list of them, or a DataFrame.
        example: take a row of the demo data that was held out before training, instead.
        explain: add the contribution of every column.
        explain_class: the class to explain; else the positive, or the predicted one.

    Raises:
        ModelNotFoundError: no such model; the nearest names are in the sentence.
        InvalidInputError: a column is missing, unknown or of another type, by its name.
    """
    session = sessions.require("predicting")
    asked = Reference.parse(model)
    run = session.active_run(asked.name)
    if run is not None:
        follow(run)
    if example == (data is not None):
        raise InvalidInputError(
            "Give the row to predict as JSON, a dict or a DataFrame, or take one of the demo "
            "data with --example; one of the two."
        )
    truth: list[str] = []
    if example:
        which = None if asked.is_exact else "deployed"
        data, label = _example(session, session.client.models.version(model, which))
        truth = [label]
    rows = _rows(data)
    found = session.client.inference.batch_predict(
        model_id=model, data_batch=rows, explain=explain, explain_class=explain_class
    )
    return Predictions(found, truth)


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
    for place, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InvalidInputError(
                f"Row {place} is a {type(row).__name__}; give every row as a dict of column "
                "to value."
            )
    return [{str(key): _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    # numpy scalars are not JSON; .item() is their plain value.
    return value.item() if hasattr(value, "item") else value


def _example(session: sessions.Session, version: ModelVersion) -> tuple[dict[str, Any], str]:
    """The first of the rows that the model's run held out, and its true label."""
    run_name = version.lineage.run
    plan = session.client.runs.get(run_name).plan if run_name else None
    if plan is None or plan.source is None or plan.source.kind != "demo":
        raise InvalidInputError(
            f"{version.model} was not trained on demo data, so there is no example row; "
            f"give one: %%ts_predict {version.model} with a JSON object of its "
            f"{len(version.signature.columns)} columns."
        )
    held_out = prepare_again(load_demo(plan.source.name).frame, plan).held_out
    row = _rows(held_out.frame.iloc[[0]])[0]
    return row, version.signature.classes[int(held_out.codes[0])]
