"""One line a site, as many as a card can hold, and always the ones that need a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..schemas.federation import Run, RunReport, SiteReport
from ..schemas.tables import Signature
from .document import Cell, Column, Table
from .numbers import clip, count, percent, plural, share, short_list, size

__all__ = ["MOST_SITES", "site_table", "sites_shown"]

#: Sites on a card. Half of the places are for failed ones and the worst.
MOST_SITES = 20

_STATUS = {"pushed": "update sent"}


def site_table(run: Run, report: RunReport) -> Table:
    """The sites of a run; without a report, what the platform knows of them."""
    if not report.sites:
        return _unreported(run)
    signature = run.plan.signature
    shown = sites_shown(report.sites)
    alone = any(site.alone is not None for site in report.sites)
    columns = [
        Column("Site"),
        Column("Rows", "right"),
        Column(_class_title(signature), "right"),
        Column("Status"),
        Column("Sent", "right"),
        Column("Received", "right"),
    ]
    if alone:
        columns.append(Column("Alone", "right"))
    rows = [_row(site, signature, alone=alone) for site in shown]
    sent = sum(site.sent_bytes for site in report.sites)
    received = sum(site.received_bytes for site in report.sites)
    caption = (
        f"{plural(len(report.sites), 'site')}, "
        f"{plural(sum(site.rows for site in report.sites), 'row')}; "
        f"sent {size(sent)}, received {size(received)} in all"
    )
    return Table(caption, tuple(columns), tuple(rows), _rest(report.sites, shown))


def sites_shown(sites: Sequence[SiteReport], most: int = MOST_SITES) -> list[SiteReport]:
    """At most ``most`` sites in their order: failed ones, the worst alone, then the first."""
    if len(sites) <= most:
        return list(sites)
    failed = [i for i, site in enumerate(sites) if site.status == "failed"][: most // 4]
    scored = sorted(
        (site.alone.accuracy, i) for i, site in enumerate(sites) if site.alone is not None
    )
    worst = [i for _, i in scored[: most // 4]]
    chosen = set(failed) | set(worst)
    for index in range(len(sites)):
        if len(chosen) == most:
            break
        chosen.add(index)
    return [sites[index] for index in sorted(chosen)]


def _class_title(signature: Signature | None) -> str:
    positive = None if signature is None else signature.positive_class
    return "Classes" if positive is None else clip(positive, 24)


def _row(site: SiteReport, signature: Signature | None, *, alone: bool) -> tuple[Cell, ...]:
    positive = None if signature is None else signature.positive_class
    if positive is None:
        present = sum(1 for rows in site.class_rows.values() if rows)
        known = 0 if signature is None else len(signature.classes)
        classes = f"{present} of {known}" if site.class_rows and known else ""
    else:
        there = positive in site.class_rows and site.rows
        classes = percent(site.class_rows[positive] / site.rows) if there else ""
    cells: list[Cell] = [
        clip(site.name, 40),
        count(site.rows),
        classes,
        _STATUS.get(site.status, site.status),
        size(site.sent_bytes),
        size(site.received_bytes),
    ]
    if alone:
        cells.append("" if site.alone is None else share(site.alone.accuracy))
    return tuple(cells)


def _rest(sites: Sequence[SiteReport], shown: list[SiteReport]) -> str:
    hidden = len(sites) - len(shown)
    if not hidden:
        return ""
    names = {site.name for site in shown}
    left = Counter(site.status for site in sites if site.name not in names)
    states = ", ".join(
        f"{count(number)} {_STATUS.get(status, status)}" for status, number in left.most_common()
    )
    return f"and {plural(hidden, 'more site')}: {states}"


def _unreported(run: Run) -> Table:
    sites = run.plan.sites
    pushed = set(run.pushed)
    at_work = run.status in ("statistics", "training")
    rows: list[tuple[Cell, ...]] = []
    for name in sites[:MOST_SITES]:
        here = "update sent" if name in pushed else "waiting" if at_work else run.status
        rows.append((clip(name, 40), here))
    rest = sites[MOST_SITES:]
    return Table(
        plural(len(sites), "site"),
        (Column("Site"), Column("Status")),
        tuple(rows),
        f"and {plural(len(rest), 'more site')}: {short_list(rest)}" if rest else "",
    )
