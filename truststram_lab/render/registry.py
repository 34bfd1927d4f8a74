"""Models and their versions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..schemas.registry import Lineage, Model, ModelVersion
from ..schemas.tables import Column as InputColumn
from ..schemas.tables import ColumnStatistics
from .card import Card, make_card, plain_data
from .document import Block, Cell, Code, Column, Fold, Line, Strong, Table, facts
from .numbers import clip, count, moment, plural, scalar, short_list, size
from .run_details import network_words

__all__ = ["model_card", "models_card"]

_MODELS_SHOWN = 40
_VERSIONS_SHOWN = 25
_COLUMNS_SHOWN = 40
_METRICS_SHOWN = 4
_ALIASES_SHOWN = 4


def models_card(models: Sequence[Model]) -> Card:
    """The list of models, as given; empty, it says how to get one."""
    if not models:
        hint = Line.of("No models yet. Train one: ", Code("%ts_federate breast-cancer"))
        return make_card("models", [hint], {"models": []})
    shown = models[:_MODELS_SHOWN]
    columns = [
        Column("Model"),
        Column("Versions", "right"),
        Column("Latest", "right"),
        Column("Deployed", "right"),
    ]
    # In text both would leave no room for the names; the framework is on the model's own card.
    aliased = any(model.aliases for model in shown)
    columns += [Column("Aliases" if aliased else "Framework"), Column("Created (UTC)")]
    if any(model.description for model in shown):
        columns.append(Column("Description"))
    rows = tuple(_model_row(model, aliased)[: len(columns)] for model in shown)
    rest = len(models) - len(rows)
    more = f"and {plural(rest, 'more model')}" if rest > 0 else ""
    hint = Line.of("Look at one: ", Code(f"%ts_models {models[0].name}"))
    data = {"models": [plain_data(model) for model in models]}
    return make_card("models", [Table("Models", tuple(columns), rows, more), hint], data)


def model_card(
    model: Model,
    versions: Sequence[ModelVersion],
    *,
    chosen: ModelVersion | None = None,
    said: str = "",
) -> Card:
    """One model: its versions, newest first, and what one of them takes in.

    Args:
        chosen: the version that was asked for; None is the newest.
        said: what was just done, first on the card.
    """
    document: list[Block] = [Line.of(clip(said, 300))] if said else []
    document.append(_headline(model))
    if model.description:
        document.append(Line.of(clip(model.description, 400)))
    if versions:
        document.append(_version_table(model, versions))
        if model.deployed_version is not None:
            document.append(Line.of("Ask it: ", Code(f"%ts_predict {model.name}")))
        chosen = chosen or versions[0]
        document += [_inputs_fold(chosen), _origin_fold(model, chosen)]
    else:
        document.append(Line.of("It has no version yet: a run of this name adds one."))
    data = {
        "model": plain_data(model),
        "versions": [_version_data(version) for version in versions],
    }
    return make_card("model", document, data)


def _model_row(model: Model, aliased: bool) -> tuple[Cell, ...]:
    aliases = [f"@{clip(entry.alias, 30)} {count(entry.version)}" for entry in model.aliases]
    return (
        model.name,
        count(model.version_count),
        _number(model.latest_version),
        _number(model.deployed_version),
        short_list(aliases, _ALIASES_SHOWN) if aliased else clip(model.framework, 30),
        moment(model.created_at, zone=""),
        clip(model.description, 100),
    )


def _headline(model: Model) -> Line:
    deployed = (
        "nothing deployed"
        if model.deployed_version is None
        else f"{model.name}:{model.deployed_version} deployed"
    )
    versions = plural(model.version_count, "version")
    return Line.of(Strong(model.name), f", {versions}, {deployed}, {clip(model.framework, 30)}")


def _number(value: int | None) -> str:
    return "none" if value is None else count(value)


def _version_table(model: Model, versions: Sequence[ModelVersion]) -> Table:
    columns = (
        Column("Version"),
        Column("Label"),
        Column("Created (UTC)"),
        Column("Size", "right"),
        Column("From run"),
        Column("Metrics"),
    )
    rows = tuple(
        (
            _sequence(model, version),
            clip(version.label, 30),
            moment(version.created_at, zone=""),
            size(version.size_bytes),
            clip(version.lineage.run or "none recorded", 40),
            _metrics(version.metrics),
        )
        for version in versions[:_VERSIONS_SHOWN]
    )
    rest = len(versions) - len(rows)
    more = f"and {plural(rest, 'older version')}" if rest > 0 else ""
    return Table("Versions, newest first", columns, rows, more)


def _sequence(model: Model, version: ModelVersion) -> str:
    deployed = ["deployed"] if version.sequence == model.deployed_version else []
    mine = [entry for entry in model.aliases if entry.version == version.sequence]
    shown = [f"@{clip(entry.alias, 30)}" for entry in mine[:_ALIASES_SHOWN]]
    rest = [f"{count(len(mine) - len(shown))} more"] if len(mine) > len(shown) else []
    return ", ".join([count(version.sequence), *deployed, *shown, *rest])


def _federation(lineage: Lineage) -> str:
    if lineage.federation is None:
        return "none recorded"
    after = "" if lineage.rounds is None else f", {plural(lineage.rounds, 'round')}"
    return f"{clip(lineage.federation)}{after}"


def _metrics(metrics: dict[str, float]) -> str:
    shown = [f"{clip(name, 24)} {scalar(value)}" for name, value in metrics.items()]
    rest = len(shown) - _METRICS_SHOWN
    return ", ".join(shown[:_METRICS_SHOWN]) + (f" and {count(rest)} more" if rest > 0 else "")


def _inputs_fold(version: ModelVersion) -> Fold:
    signature, statistics = version.signature, version.statistics
    known = {} if statistics is None else {entry.name: entry for entry in statistics.columns}
    shown = signature.columns[:_COLUMNS_SHOWN]
    rows = tuple(_column_row(column, known.get(column.name)) for column in shown)
    left = len(signature.columns) - len(shown)
    caption = "Input columns"
    if statistics is not None:
        caption += (
            f"; means and deviations over {plural(statistics.rows, 'row')} "
            f"of {plural(statistics.sites, 'site')}"
        )
    table = Table(
        caption,
        (
            Column("Column"),
            Column("Kind"),
            Column("Mean", "right"),
            Column("Deviation", "right"),
            Column("Missing", "right"),
        ),
        rows,
        f"and {plural(left, 'more column')}" if left else "",
    )
    positive = signature.positive_class
    looked_for = "" if positive is None else f"; looked for: {clip(positive)}"
    what = short_list(signature.classes, 20) if signature.classes else "a value"
    says = Line.of(f"Says {clip(signature.target)}: {what}{looked_for}")
    return Fold(
        f"What version {version.sequence} takes in: {plural(len(signature.columns), 'column')}",
        (says, table),
    )


def _column_row(column: InputColumn, known: ColumnStatistics | None) -> tuple[Cell, ...]:
    unit = f" in {clip(column.unit, 20)}" if column.unit else ""
    kind = column.kind + (", may be missing" if column.nullable else "")
    if column.categories:
        kind += f": {_categories(column, known)}"
    mean = deviation = missing = ""
    if known is not None:
        missing = count(known.missing)
        if known.mean is not None:
            mean = scalar(known.mean)
        if known.variance is not None and known.variance >= 0:
            deviation = scalar(math.sqrt(known.variance))
    return f"{clip(column.name)}{unit}", kind, mean, deviation, missing


def _categories(column: InputColumn, known: ColumnStatistics | None) -> str:
    counts = known.category_counts if known is not None else None
    if counts is None or len(counts) != len(column.categories):
        return short_list(column.categories, 8)
    return short_list(
        [f"{clip(name, 24)} {count(n)}" for name, n in zip(column.categories, counts, strict=True)],
        8,
    )


def _origin_fold(model: Model, version: ModelVersion) -> Fold:
    lineage = version.lineage
    rows: list[tuple[str, Cell]] = [
        ("model", f"{model.id}, created {moment(model.created_at)}"),
        ("version", version.id),
        *_built(version),
        ("federation", _federation(lineage)),
        ("data", f"sha256 {lineage.data_sha256[:12]}" if lineage.data_sha256 else "not recorded"),
        ("code", clip(lineage.code_version or "not recorded")),
    ]
    rows += [
        (
            f"@{clip(entry.alias, 30)}",
            f"since {moment(entry.moved_at)}, by {clip(entry.moved_by)}",
        )
        for entry in model.aliases
        if entry.version == version.sequence
    ]
    return Fold(
        f"Where version {version.sequence} comes from", (facts("Origin and contents", rows),)
    )


def _built(version: ModelVersion) -> list[tuple[str, Cell]]:
    file = f"{version.format}, sha256 {version.weights_sha256[:12]}"
    if version.architecture is None:
        return [("model", "an estimator of scikit-learn's"), ("file", file)]
    return [("network", network_words(version.architecture)), ("weights", file)]


def _version_data(version: ModelVersion) -> dict[str, object]:
    data: dict[str, object] = plain_data(version)
    # Aggregates of hundreds of columns belong to the version, not into every notebook.
    data.pop("statistics")
    return data
