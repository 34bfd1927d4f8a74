"""The run's card: is the federation worth it, what does each site do, what left it."""

from __future__ import annotations

from collections.abc import Sequence

from ..schemas.federation import Run, RunReport
from ..schemas.run_privacy import RunPrivacy
from ..schemas.strategies import FedAvg
from .bars import sparkline
from .card import Card, LiveCard, make_card, plain_data
from .document import Bar, Block, Code, Column, Line, Strong, Table
from .numbers import clip, count, duration, moment, plural, share, short_list
from .privacy import privacy_fold, privacy_lines
from .run_details import plan_fold, platform_fold, rounds_fold, scores_fold
from .simulation import clients_lines, failures_words
from .sites import site_table
from .strategies import strategy_words

__all__ = ["live_run_card", "run_card", "runs_card"]

_BAR_CELLS = 10
_RUNS_SHOWN = 40


def run_card(run: Run, *, progress: str | None = None, spending: RunPrivacy | None = None) -> Card:
    """A run as it is now: live, stopped, failed or done.

    Args:
        progress: what this kernel is doing at the moment, in a few words.
        spending: what its owner's ledger says; the report's where left out.
    """
    report = run.report or RunReport()
    spent = spending or report.privacy
    document = [
        *_open(run, progress, spent),
        *rounds_fold(report),
        *scores_fold(run, report),
        *privacy_fold(run, spent),
        platform_fold(run),
        plan_fold(run),
    ]
    data = plain_data(run)
    # The aggregates are kept with the model's version; here they would fill the notebook.
    data.pop("statistics")
    return make_card("run", document, {"run": data, "progress": progress})


def live_run_card(
    run: Run, *, progress: str | None = None, spending: RunPrivacy | None = None
) -> LiveCard:
    """What :func:`run_card` shows unfolded, for as long as the run goes on."""
    report = run.report or RunReport()
    return LiveCard.of(_open(run, progress, spending or report.privacy))


def _open(run: Run, progress: str | None, spent: RunPrivacy | None) -> list[Block]:
    report = run.report or RunReport()
    document: list[Block] = [_headline(run, report)]
    document += _state_lines(run, progress)
    document += _comparison(run, report)
    if report.history:
        document.append(_curve(report))
    document += clients_lines(run, report)
    document.append(site_table(run, report))
    document += privacy_lines(run, spent)
    document += _result(run)
    return document


def runs_card(runs: Sequence[Run]) -> Card:
    """The list of runs, as given; empty, it says how to start one."""
    if not runs:
        document: list[Block] = [
            Line.of("No runs yet. Start one: ", Code("%ts_federate breast-cancer"))
        ]
        return make_card("runs", document, {"runs": []})
    columns = (
        Column("Run"),
        Column("State"),
        Column("Rounds", "right"),
        Column("Sites", "right"),
        Column("Accuracy", "right"),
        Column("Version"),
        Column("Started (UTC)"),
    )
    rows = tuple(_run_row(run) for run in runs[:_RUNS_SHOWN])
    rest = len(runs) - len(rows)
    table = Table("Runs", columns, rows, f"and {plural(rest, 'more run')}" if rest > 0 else "")
    hint = Line.of("Look at one: ", Code(f"%ts_runs {runs[0].name}"))
    return make_card("runs", [table, hint], {"runs": [_run_summary(run) for run in runs]})


def _headline(run: Run, report: RunReport) -> Line:
    sites = plural(len(run.plan.sites), "simulated site" if run.plan.simulated else "site")
    strategy = run.plan.strategy
    if run.plan.hosted is not None:
        sites = plural(run.plan.hosted.clients, "simulated client")
        strategy = run.plan.hosted.strategy
    parts = [sites, f"round {run.round}/{run.plan.rounds}"]
    if run.report is not None and report.sites:
        # Of real sites nobody measures one time and one device.
        parts += [duration(report.elapsed_s), clip(report.device, 40)]
    if not isinstance(strategy, FedAvg):
        parts.append(strategy_words(strategy))
    if run.plan.hosted is not None and run.plan.hosted.failures.any:
        parts.append(failures_words(run.plan.hosted.failures))
    return Line.of(Strong(run.plan.model), f", {', '.join(parts)}")


# Where it is ---------------------------------------------------------------------------


def _state_lines(run: Run, progress: str | None) -> list[Block]:
    name = run.name
    if run.status == "failed":
        reason = clip(run.reason or "no reason was given.", 600)
        return [
            Line.of(Strong(f"Run {name} failed {_place(run)}: "), reason),
            Line.of("Start another with ", Code("%ts_federate"), "."),
        ]
    if run.status == "stopped":
        why = f" ({clip(run.reason, 300)})" if run.reason else ""
        return [
            Line.of(Strong(f"Run {name} was stopped {_place(run)}{why}.")),
            Line.of("Go on with ", Code(f"%ts_runs {name} resume")),
        ]
    if run.status == "completed":
        if progress:
            return [Line.of(f"Run {name} is trained; {clip(progress, 200)}")]
        return []
    what = (
        "means and variances"
        if run.status == "statistics"
        else f"round {_current(run)} of {run.plan.rounds}"
    )
    doing = clip(progress, 200) if progress else what
    # Without our extension a page that is reloaded gets no updates of a cell it did not start.
    return [
        Line.of(f"Run {name}: {doing}"),
        Line.of(_waiting(run)),
        Line.of("No news after a reload? ", Code(f"%ts_runs {name} watch")),
    ]


def _current(run: Run) -> int:
    return min(run.round + 1, run.plan.rounds)


def _place(run: Run) -> str:
    pushed = f", {len(run.pushed)} of {plural(len(run.plan.sites), 'site')} in"
    if run.round == 0 and run.statistics is None:
        return f"while collecting means and variances{pushed}"
    return f"in round {_current(run)} of {run.plan.rounds}{pushed}"


def _waiting(run: Run) -> str:
    pushed = set(run.pushed)
    missing = [site for site in run.plan.sites if site not in pushed]
    arrived = f"{count(len(pushed))} of {plural(len(run.plan.sites), 'site')} in"
    if not missing:
        return f"{arrived}; the platform adds them up"
    return f"{arrived}; waiting for {short_list(missing)}"


# Is it worth it ------------------------------------------------------------------------


def _comparison(run: Run, report: RunReport) -> list[Block]:
    alone = [site for site in report.sites if site.alone is not None]
    measured = report.federated or report.pooled or alone or report.majority_share is not None
    if not measured:
        return []
    rows: list[tuple[str, float | None, str]] = [_federated_row(run, report)]
    if _is_of_module(run):
        caption = f"Accuracy, {plural(report.held_out_rows, 'row')} held out at the clients"
    else:
        caption = f"Accuracy, {plural(report.held_out_rows, 'row')} held out before splitting"
        rows = [_alone_row(report), *rows, _pooled_row(report)]
    if report.majority_share is not None:
        rows.append(
            ("majority class", report.majority_share, "the floor: one answer for every row")
        )
    cells = tuple(
        (
            name,
            "" if accuracy is None else share(accuracy),
            "" if accuracy is None else Bar.of(accuracy, _BAR_CELLS),
            note,
        )
        for name, accuracy, note in rows
    )
    return [
        Table(
            caption,
            (Column(), Column(align="right"), Column(), Column()),
            cells,
        )
    ]


def _alone_row(report: RunReport) -> tuple[str, float | None, str]:
    if report.clients is not None and report.clients.alone is not None:
        local = report.clients.alone
        return "alone", local.mean, f"mean of all clients; worst {share(local.least)}"
    scored = [(site.alone.accuracy, site.name) for site in report.sites if site.alone is not None]
    if not scored:
        return "alone", None, "measured at the end: each site by itself"
    worst, where = min(scored)
    mean = sum(accuracy for accuracy, _ in scored) / len(scored)
    of = (
        f"mean of {plural(len(scored), 'site')}"
        if len(scored) == len(report.sites)
        else f"mean of {len(scored)} of {len(report.sites)} sites so far"
    )
    return "alone", mean, f"{of}; worst site {share(worst)} ({clip(where, 30)})"


def _is_of_module(run: Run) -> bool:
    """Whether it is a simulation of a torch module, whose clients came with their own rows."""
    return run.plan.hosted is not None and run.plan.signature is None


def _pooled_row(report: RunReport) -> tuple[str, float | None, str]:
    pooled = report.pooled
    if pooled is None:
        return "pooled", None, "measured at the end; impossible in reality"
    between = f"{share(pooled.low)}–{share(pooled.high)}"
    return "pooled", pooled.accuracy, f"{between}; impossible in reality"


def _federated_row(run: Run, report: RunReport) -> tuple[str, float | None, str]:
    score = report.federated
    if score is None:
        return "federated", None, "measured after each round"
    note = f"{share(score.low)}–{share(score.high)}"
    positive = None if run.plan.signature is None else run.plan.signature.positive_class
    if positive in score.recall:
        note += f"; {clip(positive, 30)} found {share(score.recall[positive])}"
    elif score.recall:
        label = min(score.recall, key=lambda name: score.recall[name])
        note += f"; least found: {clip(label, 30)} {share(score.recall[label])}"
    return "federated", score.accuracy, note


def _curve(report: RunReport) -> Line:
    scored = [(e.number, e.accuracy) for e in report.history if e.accuracy is not None]
    if not scored:
        entry = report.history[-1]
        return Line.of(f"Loss after round {entry.number}: {entry.loss:.3g}")
    (_, first), (number, last) = scored[0], scored[-1]
    if len(scored) == 1:
        return Line.of(f"Accuracy after round {number}: {share(last)}")
    return Line.of(
        f"Accuracy round by round: {share(first)} ",
        Bar(sparkline([accuracy for _, accuracy in scored])),
        f" {share(last)} after round {number}",
    )


def _result(run: Run) -> list[Block]:
    if run.model_version is None:
        return []
    saved = f"{run.plan.model}:{run.model_version}"
    demo = run.plan.source is not None and run.plan.source.kind == "demo"
    predict = (
        f"%ts_predict {run.plan.model} --example --explain"
        if demo
        else f"%%ts_predict {run.plan.model} --explain"
    )
    following: list[Block] = [Line.of("Next: ", Code(predict))] if run.deployed else []
    return [
        Line.of(
            "Saved ",
            Strong(saved),
            ", deployed here. " if run.deployed else ", not deployed: nothing is served by name. ",
            f"Run {run.name}.",
        ),
        *following,
    ]


# The list ------------------------------------------------------------------------------


def _run_row(run: Run) -> tuple[str, ...]:
    history = run.report.history if run.report else []
    version = "" if run.model_version is None else count(run.model_version)
    federated = run.report.federated if run.report else None
    accuracy = federated.accuracy if federated else history[-1].accuracy if history else None
    return (
        run.name,
        run.status,
        f"{count(run.round)}/{count(run.plan.rounds)}",
        count(_sites(run)),
        "" if accuracy is None else share(accuracy),
        f"{version}{', deployed' if run.deployed else ''}",
        moment(run.created_at, zone=""),
    )


def _sites(run: Run) -> int:
    """Participants, or virtual clients of one host."""
    return len(run.plan.sites) if run.plan.hosted is None else run.plan.hosted.clients


def _run_summary(run: Run) -> dict[str, object]:
    return {
        "name": run.name,
        "status": run.status,
        "round": run.round,
        "rounds": run.plan.rounds,
        "sites": _sites(run),
        "model": run.plan.model,
        "model_version": run.model_version,
        "deployed": run.deployed,
        "created_at": run.created_at,
    }
