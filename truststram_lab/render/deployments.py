"""Where models are served, by what, and what they are asked."""

from __future__ import annotations

from collections.abc import Sequence

from ..schemas.serving import Deployment, PredictionRecord, Traffic
from .bars import sparkline
from .card import Card, make_card, plain_data
from .document import Block, Code, Column, Fold, Line, Strong, Table, facts
from .numbers import clip, count, latency, moment, percent, plural

__all__ = ["deployment_card", "deployments_card", "prediction_log_card"]

_DEPLOYMENTS_SHOWN = 40
_ENTRIES_SHOWN = 20


def deployments_card(deployments: Sequence[Deployment]) -> Card:
    """What is served, where, and which version answers."""
    if not deployments:
        empty = "Nothing is deployed yet. A run here deploys the model that it trains: "
        return make_card(
            "deployments",
            [Line.of(empty, Code("%ts_federate breast-cancer"))],
            {"deployments": []},
        )
    columns = (
        Column("Name"),
        Column("Serves"),
        Column("Status"),
        Column("Revision", "right"),
        Column("Changed (UTC)"),
    )
    rows = tuple(
        (
            f"{clip(entry.name)} ({clip(entry.environment, 20)})",
            _pinned(entry),
            f"{entry.status}{_workers(entry)}",
            count(entry.revision),
            moment(entry.updated_at, zone=""),
        )
        for entry in deployments[:_DEPLOYMENTS_SHOWN]
    )
    rest = len(deployments) - len(rows)
    more = f"and {plural(rest, 'more deployment')}" if rest > 0 else ""
    table = Table("Deployments", columns, rows, more)
    hint = Line.of("Ask one: ", Code(f"%ts_predict {deployments[0].name}"))
    shown = deployments[: len(rows)]
    addresses = [(clip(entry.name), clip(entry.endpoint_url, 200)) for entry in shown]
    folds = [Fold("Addresses", (facts("Where programs ask them", addresses),))]
    reasons = [(clip(entry.name), clip(entry.runtime_reason, 300)) for entry in shown]
    reasons = [(name, reason) for name, reason in reasons if reason]
    if reasons:
        folds.append(Fold("What computes them", (facts("What computes them", reasons),)))
    data = {"deployments": [plain_data(entry) for entry in deployments]}
    return make_card("deployments", [table, hint, *folds], data)


def _workers(entry: Deployment) -> str:
    if entry.scaling is None:
        return ""
    low, high = entry.scaling.min_instances, entry.scaling.max_instances
    bounds = count(low) if low == high else f"{count(low)} to {count(high)}"
    return f", {plural(entry.scaling.instances, 'worker')} of {bounds}"


def _pinned(entry: Deployment) -> str:
    named = "" if entry.reference is None else f", named as {clip(entry.reference)}"
    return f"{clip(entry.model)}:{entry.version}{named}"


def deployment_card(
    deployment: Deployment,
    traffic: Traffic | None = None,
    entries: Sequence[PredictionRecord] = (),
    *,
    said: str = "",
) -> Card:
    """One deployment: what answers, what it was asked lately, and the last entries of its log."""
    document: list[Block] = [Line.of(said)] if said else []
    document.append(
        Line.of(
            Strong(clip(deployment.name)),
            f" serves {_pinned(deployment)}: {deployment.status}{_workers(deployment)}",
            aside=f"{clip(deployment.environment, 20)}, revision {count(deployment.revision)}",
        )
    )
    if traffic is not None:
        document.append(_traffic(traffic))
        if any(traffic.per_minute):
            document.append(Line.of("Requests a minute ", sparkline(traffic.per_minute, 60)))
    if entries:
        document.append(_log_table(entries, "Last requests"))
    document.append(Line.of("Ask it: ", Code(f"%ts_predict {deployment.name}")))
    known = [("Address", clip(deployment.endpoint_url, 200))]
    if deployment.runtime_reason:
        known.append(("Computed by", clip(deployment.runtime_reason, 300)))
    known.append(("Changed (UTC)", moment(deployment.updated_at, zone="")))
    document.append(Fold("Where and how", (facts("Where and how", known),)))
    data = {
        "deployment": plain_data(deployment),
        "traffic": None if traffic is None else plain_data(traffic),
        "entries": [plain_data(entry) for entry in entries],
    }
    return make_card("deployment", document, data)


def _traffic(traffic: Traffic) -> Line:
    hours = traffic.seconds / 3600
    span = "hour" if hours == 1 else f"{plural(round(hours), 'hour')}" if hours > 1 else ""
    when = f"Last {span or plural(round(traffic.seconds / 60), 'minute')}: "
    if not traffic.requests:
        return Line.of(f"{when}no request.")
    failed = f", {count(traffic.failed)} failed ({percent(traffic.failed / traffic.requests)})"
    told = f"{when}{plural(traffic.requests, 'request')}, {plural(traffic.rows, 'row')}"
    took = ""
    if traffic.latency_ms is not None:
        spread = traffic.latency_ms
        took = f"; half within {latency(spread.p50)}, 95 % within {latency(spread.p95)}"
    return Line.of(f"{told}{failed if traffic.failed else ', none failed'}{took}.")


def prediction_log_card(entries: Sequence[PredictionRecord], *, name: str | None = None) -> Card:
    """Entries of the log of predictions, newest first."""
    of = "" if name is None else f" of {clip(name)}"
    data = {"entries": [plain_data(entry) for entry in entries]}
    if not entries:
        return make_card("predictions", [Line.of(f"The log{of} has no prediction yet.")], data)
    table = _log_table(entries, f"Log of predictions{of}, newest first")
    kept = "It holds who asked which version, and no row of anybody's data."
    if any(entry.answers is not None or entry.data is not None for entry in entries):
        kept = "Answers or rows are in it, because a deployment says so: .to_frame()"
    return make_card("predictions", [table, Line.of(kept)], data)


def _log_table(entries: Sequence[PredictionRecord], caption: str) -> Table:
    columns = (
        Column("When (UTC)"),
        Column("Version"),
        Column("Who"),
        Column("Rows", "right"),
        Column("Took", "right"),
        Column("Answer"),
    )
    rows = tuple(
        (
            moment(entry.created_at, zone="", seconds=True),
            f"{clip(entry.model)}:{entry.version}",
            clip(entry.caller, 60),
            count(entry.rows),
            latency(entry.latency_ms),
            "given" if entry.status < 400 else f"refused ({entry.status})",
        )
        for entry in entries[:_ENTRIES_SHOWN]
    )
    rest = len(entries) - len(rows)
    return Table(caption, columns, rows, f"and {count(rest)} more in the result" if rest else "")
