"""What is folded away on a run's card: every number, and how to repeat the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..schemas.federation import CreateRun, RoundReport, Run, RunReport, Score
from ..schemas.privacy import LocalPlan, PrivacyPlan, RecordPlan
from ..schemas.registry import Architecture, DenseLayer
from ..schemas.splits import Split
from ..schemas.strategies import FedAvg
from ..schemas.tables import Signature
from .document import Block, Cell, Column, Fold, Line, Table, facts
from .numbers import clip, count, moment, percent, plural, share
from .privacy import seen_words
from .simulation import hosted_rows
from .sites import sites_shown
from .strategies import filter_words, strategy_words

__all__ = ["network_words", "plan_fold", "platform_fold", "rounds_fold", "scores_fold"]

_ROUNDS_SHOWN = 40
_SITES_IN_FULL = 10
_LABELS_SHOWN = 12


def rounds_fold(report: RunReport) -> list[Block]:
    """Accuracy and loss after each round."""
    history = report.history
    if not history:
        return []
    shown = _rounds_shown(history)
    rows = tuple(
        (
            count(entry.number),
            "" if entry.accuracy is None else share(entry.accuracy, 3),
            _loss(entry.loss),
        )
        for entry in shown
    )
    left = len(history) - len(shown)
    table = Table(
        "After each round",
        (Column("Round", "right"), Column("Accuracy", "right"), Column("Loss", "right")),
        rows,
        f"{plural(left, 'round')} in between left out" if left else "",
        newspaper=True,
    )
    return [Fold("Round by round", (table,))]


def scores_fold(run: Run, report: RunReport) -> list[Block]:
    """Every score with its interval, and what each site has of every class."""
    classes = [] if run.plan.signature is None else run.plan.signature.classes
    shown = sites_shown(report.sites, _SITES_IN_FULL)
    contenders = [("federated", report.federated), ("pooled", report.pooled)]
    contenders += [(f"{clip(site.name, 40)} alone", site.alone) for site in shown]
    scores = [(name, score) for name, score in contenders if score is not None]
    blocks: list[Block] = []
    if scores:
        columns = (
            Column("Trained by"),
            Column("Accuracy", "right"),
            Column("95 % interval", "right"),
            Column("Rows", "right"),
            Column("Found, by class"),
        )
        rows = tuple(_score_row(name, score) for name, score in scores)
        blocks.append(Table("On the rows held out", columns, rows, _left(report, shown)))
    if any(site.class_rows for site in shown):
        dealt = tuple((clip(site.name, 40), _by_class(site.class_rows, classes)) for site in shown)
        blocks.append(
            Table("Rows by class at each site", (Column(), Column()), dealt, _left(report, shown))
        )
    return [Fold("Every score and every site's classes", tuple(blocks))] if blocks else []


def platform_fold(run: Run) -> Fold:
    """What the platform could see of a site, and what it could not."""
    lines: list[Block] = [Line.of(_statistics_words(run))]
    whose = "each site" if run.plan.hosted is None else "the host, for all its virtual clients"
    lines += [
        Line.of(
            f"Of {whose}, every round: the change of the network's weights, with the number of "
            "rows and the training loss."
        ),
        Line.of(_owner_words(run)),
        Line.of("Never a row, and no smallest or largest value of a column."),
        Line.of(seen_words(run)),
    ]
    known = run.statistics
    if known is not None:
        total = f"{plural(known.rows, 'row')} of {plural(known.sites, 'site')}"
        lines.append(Line.of(f"The means and variances that it keeps are of {total}."))
    return Fold("What the platform could see", tuple(lines))


def _owner_words(run: Run) -> str:
    if not run.plan.simulated:
        return (
            "Of each site's own data before and after: the columns' names and categories, and the "
            "scores on the rows it holds out, with their number."
        )
    if run.plan.hosted is not None and run.plan.signature is None:
        return (
            "Of the owner, who announced the run: the initial weights, a hash of the rows, and "
            "what this card shows, the scores and the clients' row counts as quartiles."
        )
    return (
        "Of the owner, who announced the run: the columns' names and categories, a hash of the "
        "table, and what this card shows, the scores and each site's rows by class."
    )


def _statistics_words(run: Run) -> str:
    signature = run.plan.signature
    if signature is None and run.plan.hosted is not None:
        return "Of the host: how many rows all its virtual clients have; nothing of any column."
    if signature is None:
        return "Of each site, once: its row count; its columns are not known to the platform."
    columns = plural(len(signature.columns), "column")
    if isinstance(run.plan.privacy, RecordPlan):
        return (
            f"Of each site, once: its row count, and for its {columns} counts, means and variances "
            "that were noised, or made of public bounds alone."
        )
    return (
        f"Of each site, once: its row count, and for its {columns} counts, means and "
        "variances (for categories: how many rows of each)."
    )


def _rounds_words(plan: CreateRun) -> str:
    if plan.hosted is not None:  # the platform takes the one host's update as it is
        return f"{count(plan.rounds)}, seed {plan.seed}"
    return f"{count(plan.rounds)}, averaged by {plan.strategy}, seed {plan.seed}"


def plan_fold(run: Run) -> Fold:
    """Everything that is needed to repeat the run."""
    plan, local = run.plan, run.plan.local
    rows: list[tuple[str, Cell]] = [
        ("run", f"{run.name} ({run.id}), {run.status}, event {count(run.last_event)}"),
        ("started", f"{moment(run.created_at)}; last change {moment(run.updated_at)}"),
        ("federation", clip(plan.federation)),
        ("data", _data_words(run)),
        ("split", _split_words(run)),
        ("target", _target_words(plan.signature)),
        ("rounds", _rounds_words(plan)),
        *([] if plan.hosted is None else hosted_rows(plan.hosted)),
        *_unusual(plan),
        (
            "each round",
            f"{_steps_words(plan)}, learning rate {local.learning_rate:g}, "
            f"momentum {local.momentum:g}, weight decay {local.weight_decay:g}, {local.dtype}",
        ),
        ("network", _network(plan.architecture)),
        ("smallest site", f"{plural(plan.min_site_rows, 'row')}, or its means are refused"),
    ]
    return Fold("How to repeat it", (facts(f"The plan of {run.name}", rows),))


def _steps_words(plan: CreateRun) -> str:
    local, privacy = plan.local, plan.privacy
    if isinstance(privacy, RecordPlan):
        return (
            f"{plural(privacy.steps_per_round, 'step')} of DP-SGD, each on a Poisson sample: every "
            f"row with chance {privacy.sample_rate:.3g}"
        )
    words = f"{plural(local.epochs, 'epoch')}, batches of {count(local.batch_size)}"
    optimizer = plan.config.get("optimizer") if plan.hosted is not None else None
    return words if optimizer is None else f"{words}, optimizer {clip(str(optimizer), 200)}"


def _target_words(signature: Signature | None) -> str:
    if signature is None:
        return "known to the sites only"
    return f"{clip(signature.target)}: {_labels(signature.classes)}"


def _network(architecture: Architecture | None) -> str:
    return "the sites' own" if architecture is None else network_words(architecture)


def _unusual(plan: CreateRun) -> list[tuple[str, Cell]]:
    """What differs from plain averaging."""
    rows: list[tuple[str, Cell]] = []
    if not isinstance(plan.strategy, FedAvg):
        rows.append(("strategy", strategy_words(plan.strategy)))
    if plan.filters:
        rows.append(("filters", filter_words(plan.filters)))
    if plan.privacy is not None:
        rows.append(("privacy", _privacy_words(plan.privacy)))
    return rows


def _privacy_words(plan: PrivacyPlan) -> str:
    noise = (
        f"sigma {plan.sigma:.4g}"
        if isinstance(plan, LocalPlan)
        else f"noise multiplier {plan.noise_multiplier:.4g}"
    )
    return (
        f"{plan.unit}-level {plan.mechanism}, clip {plan.clip:g}, {noise}, delta {plan.delta:.3g}"
    )


def network_words(architecture: Architecture) -> str:
    """A network in one line: ``30 inputs, 32 relu, dropout 0.1, 1 identity``."""
    layers = [
        f"{count(layer.units)} {layer.activation}"
        if isinstance(layer, DenseLayer)
        else f"dropout {layer.rate:g}"
        for layer in architecture.layers
    ]
    return ", ".join([plural(architecture.inputs, "input"), *layers])


def _rounds_shown(history: list[RoundReport]) -> list[RoundReport]:
    """The first rounds, the last ones, and the best, if they are too many."""
    if len(history) <= _ROUNDS_SHOWN:
        return history
    best = max(range(len(history)), key=lambda index: history[index].accuracy or 0.0)
    half = _ROUNDS_SHOWN // 2
    chosen = {best, *range(half), *range(len(history) - half, len(history))}
    return [history[index] for index in sorted(chosen)]


def _loss(value: float) -> str:
    return f"{value:.3f}" if 0.0005 <= value < 1000 else f"{value:.2g}"


def _score_row(name: str, score: Score) -> tuple[Cell, ...]:
    return (
        name,
        share(score.accuracy, 3),
        f"{share(score.low, 3)}–{share(score.high, 3)}",
        count(score.rows),
        _pairs({label: share(found) for label, found in score.recall.items()}),
    )


def _by_class(class_rows: Mapping[str, int], classes: list[str]) -> str:
    ordered = [label for label in classes if label in class_rows]
    ordered += [label for label in class_rows if label not in set(classes)]
    return _pairs({label: count(class_rows[label]) for label in ordered})


def _pairs(values: Mapping[str, str]) -> str:
    shown = [f"{clip(label, 24)} {value}" for label, value in list(values.items())[:_LABELS_SHOWN]]
    rest = len(values) - len(shown)
    return ", ".join(shown) + (f" and {count(rest)} more" if rest else "")


def _labels(classes: list[str]) -> str:
    shown = ", ".join(clip(label, 24) for label in classes[:_LABELS_SHOWN])
    rest = len(classes) - _LABELS_SHOWN
    return f"{shown} and {count(rest)} more" if rest > 0 else shown


def _left(report: RunReport, shown: Sequence[object]) -> str:
    rest = len(report.sites) - len(shown)
    return f"and {plural(rest, 'more site')}" if rest > 0 else ""


def _data_words(run: Run) -> str:
    source = run.plan.source
    if source is None:
        return "the sites' own"
    kind = {"demo": "demo data", "dataframe": "a DataFrame", "arrays": "arrays"}[source.kind]
    rows = plural(source.rows, "row")
    return f"{clip(source.name)} ({kind}), {rows}, sha256 {source.sha256[:12]}"


def _split_words(run: Run) -> str:
    split = run.plan.split
    if split is None:
        return "as the sites hold them"
    held = f"{percent(split.holdout_fraction)} held out first"
    if split.kind == "column":
        return f"by the values of {clip(split.column or 'a column', 40)}; {held}"
    one_class = "; sites of one class allowed" if split.allow_one_class else ""
    moved = f"; {plural(split.moved, 'row')} moved to sites with too few" if split.moved else ""
    return f"{_dealing_words(split)}; {held}{one_class}{moved}"


def _dealing_words(split: Split) -> str:
    if split.kind == "iid":
        return "at random, equally"
    if split.kind == "shards":
        return f"{plural(split.shards or 0, 'shard')} a site of the rows sorted by class"
    alpha = "" if split.alpha is None else f", alpha {split.alpha:g}"
    if split.kind == "quantity":
        return f"by size, Dirichlet{alpha}"
    if split.kind == "given":
        return "as the owner gave them"
    return f"by label, Dirichlet{alpha}"
