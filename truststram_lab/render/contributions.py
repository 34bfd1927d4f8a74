"""The cards of what each site brought to a run's model, and of the model without some."""

from __future__ import annotations

from collections.abc import Sequence

from ..schemas.contributions import Contributions, ModelScore, SiteContribution, Worth
from ..schemas.federation import Run
from .card import Card, make_card, plain_data
from .document import Bar, Block, Cell, Code, Column, Fold, Line, Strong, Table
from .numbers import clip, count, percent, plural, share, short_list

__all__ = ["contributions_card", "without_card"]

_SITES_SHOWN = 40
_CELLS = 10
#: Less of log loss, in nats a row, is no news.
_NOTHING = 0.001
_MEANING = (
    "A set of sites is worth the score of the model that the stored updates of its members alone "
    "make, aggregated again from the initial weights. No site trains again: an update is what its "
    "site sent beside all the others, so a federation that had never had a site may end elsewhere. "
    "Means and variances for scaling stay those of all sites."
)


def contributions_card(run: Run, found: Contributions) -> Card:
    """Each site's worth by accuracy, the largest Shapley value first; by loss in a fold."""
    name = clip(run.name)
    whole, empty = (share(one.accuracy, 3) for one in (found.everybody, found.nobody))
    last = f"%ts_runs {name} contribution --drop '{_last(found)}'"
    document: list[Block] = [
        Line.of(Strong(f"What each site brought to {name}"), f": {_finding(found)}"),
        Line.of(
            f"Accuracy on {plural(found.rows, 'held-out row')}: {whole} with all "
            f"{count(len(found.sites))} sites, {empty} before the first round."
        ),
        _table(found, "accuracy", "Share of the accuracy gained"),
        Fold("The same by log loss", (_table(found, "loss", "Share of the loss that went away"),)),
        *_method(found),
        Fold("What the numbers mean", (Line.of(_MEANING),)),
        Line.of("Without one of them: ", Code(last)),
    ]
    return make_card("contributions", document, {"run": run.name, **plain_data(found)})


def _of(site: SiteContribution, measure: str) -> Worth:
    return site.accuracy if measure == "accuracy" else site.loss


def _sorted(found: Contributions, measure: str) -> list[SiteContribution]:
    def key(site: SiteContribution) -> float:
        worth = _of(site, measure)
        value = worth.leave_one_out if worth.shapley is None else worth.shapley
        return float("inf") if value is None else -value

    return sorted(found.sites, key=key)


def _last(found: Contributions) -> str:
    return clip(_sorted(found, "accuracy")[-1].site, 40)


def _finding(found: Contributions) -> str:
    harmful = [
        clip(site.site, 40)
        for site in found.sites
        if site.loss.shapley is not None and site.loss.shapley + 2 * (site.loss.error or 0.0) < 0
    ]
    if not found.complete:
        return "interrupted; what was counted until then."
    if harmful:
        return f"{short_list(harmful)} made it worse by log loss, on average over sets of sites."
    ranked = _sorted(found, "accuracy")
    if ranked[0].accuracy.shapley is None:
        return "the score with all sites, minus that without each."
    return f"{clip(ranked[0].site, 40)} brought the most."


def _table(found: Contributions, measure: str, caption: str) -> Table:
    ranked = _sorted(found, measure)
    largest = max(
        (abs(v) for s in ranked for v in (_of(s, measure).shapley,) if v is not None), default=0.0
    )
    sampled = found.method == "permutations"
    columns = [Column("Site"), Column("Shapley value", "right"), Column("")]
    columns += [Column("Standard error", "right")] * sampled
    columns += [Column("Left out", "right"), Column("Rounds", "right")]
    rows: list[tuple[Cell, ...]] = []
    for site in ranked[:_SITES_SHOWN]:
        worth = _of(site, measure)
        row: list[Cell] = [clip(site.site, 40), _number(worth.shapley), _bar(worth, largest)]
        row += [_number(worth.error, ".3f")] * sampled
        row += [_number(worth.leave_one_out), count(site.rounds)]
        rows.append(tuple(row))
    total = getattr(found.everybody, measure) - getattr(found.nobody, measure)
    gained = total if measure == "accuracy" else -total
    if found.method != "leave_one_out":
        last: list[Cell] = ["all of these", _number(gained), ""]
        last += [""] * (len(columns) - len(last))
        rows.append(tuple(last))
    rest = ""
    if len(ranked) > _SITES_SHOWN:
        rest = f"{plural(len(ranked) - _SITES_SHOWN, 'more site')} not shown; to_frame() has all."
    return Table(caption, tuple(columns), tuple(rows), rest)


def _number(value: float | None, form: str = "+.3f") -> str:
    if value is None:
        return "unknown"
    return f"{value:{form}}" if abs(value) >= 0.0005 or value == 0 else f"{value:{form[:-3]}.1g}"


def _bar(worth: Worth, largest: float) -> Cell:
    if worth.shapley is None or not largest:
        return ""
    return Bar.of(abs(worth.shapley) / largest, _CELLS, negative=worth.shapley < 0)


def _method(found: Contributions) -> list[Block]:
    models = plural(found.evaluations, "model")
    if found.method == "exact":
        said = f"Shapley values over every set of sites: {models} built and scored."
    elif found.method == "permutations":
        said = (
            f"Shapley values estimated: {plural(found.pairs, 'order')} of the sites walked there "
            f"and back, {models} built and scored, {percent(found.truncated)} of the steps taken "
            f"to change nothing. What they do not add up to: {found.residual['accuracy']:+.2g} of "
            f"accuracy, {found.residual['loss']:+.2g} of loss."
        )
    else:
        said = f"No Shapley values: {found.why}. {models} built and scored."
    return [Line.of(said)]


def without_card(
    run: Run, dropped: Sequence[str], everybody: ModelScore, without: ModelScore, rows: int
) -> Card:
    """Two models side by side: with all sites, and without some."""
    names = short_list([clip(name, 40) for name in dropped])
    gap = without.accuracy - everybody.accuracy
    finding = (
        "accuracy is the same"
        if gap == 0
        else f"accuracy {'rises' if gap > 0 else 'falls'} by {abs(gap):.3f}"
    )
    table = Table(
        f"On {plural(rows, 'held-out row')}",
        (Column("Model"), Column("Accuracy", "right"), Column(""), Column("Log loss", "right")),
        tuple(
            (label, share(score.accuracy, 3), Bar.of(score.accuracy, _CELLS), f"{score.loss:.4f}")
            for label, score in (("all sites", everybody), (f"without {names}", without))
        ),
    )
    document: list[Block] = [
        Line.of(Strong(f"{clip(run.name)} without {names}"), f": {finding}."),
        table,
        Line.of(
            "Aggregated again from the stored updates of the others; nobody trained again, and "
            "nothing was registered."
        ),
        Fold("What the numbers mean", (Line.of(_MEANING),)),
    ]
    data = {
        "run": run.name,
        "dropped": list(dropped),
        "everybody": plain_data(everybody),
        "without": plain_data(without),
        "rows": rows,
    }
    return make_card("contributions", document, data)
