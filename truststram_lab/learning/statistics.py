"""Federated means and variances: what each site sends, and how the platform merges it.

A site sends sums over its rows, never a row, a minimum or a maximum. The merge is exact: it
does not depend on how the rows are dealt to the sites, up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..exceptions import InvalidInputError, UpdateRejectedError
from ..schemas.tables import Column, ColumnStatistics, Signature, Statistics
from .columns import Table, category_codes, check_columns, numeric_values, row_count
from .weights import State, check_update

__all__ = ["check_moments", "empty_moments", "joined_moments", "local_moments", "merge_moments"]


def empty_moments(signature: Signature) -> State:
    """Moments of no rows: the names, shapes and types that a site has to send.

    ``rows`` int64 (1,); over the numeric and boolean columns in the signature's order
    ``count`` int64, ``mean`` float64 (column units), ``m2`` float64 (sum of squared
    deviations from the mean, squared column units); ``missing`` int64 over all columns;
    ``categories`` int64, the counts of all categorical columns one after another.
    """
    measured = len(_measured(signature))
    return {
        "rows": np.zeros(1, np.int64),
        "count": np.zeros(measured, np.int64),
        "mean": np.zeros(measured, np.float64),
        "m2": np.zeros(measured, np.float64),
        "missing": np.zeros(len(signature.columns), np.int64),
        "categories": np.zeros(sum(len(c.categories) for c in signature.columns), np.int64),
    }


def local_moments(table: Table, signature: Signature) -> State:
    """The moments of one site's rows, in the layout of ``empty_moments``.

    Args:
        table: the feature columns, as a data frame or a mapping of name to values.

    Raises:
        InvalidInputError: the columns are not the signature's, or a value is unusable.
    """
    check_columns(table.keys(), signature)
    moments = empty_moments(signature)
    moments["rows"][0] = row_count(table)
    measured = counted = 0
    for place, column in enumerate(signature.columns):
        values = table[column.name]
        if column.kind == "categorical":
            codes = category_codes(values, column)
            counts = np.bincount(codes[codes >= 0], minlength=len(column.categories))
            moments["categories"][counted : counted + len(counts)] = counts
            moments["missing"][place] = int((codes < 0).sum())
            counted += len(counts)
            continue
        numbers = numeric_values(values, column)
        present = numbers[~np.isnan(numbers)]
        moments["missing"][place] = len(numbers) - len(present)
        moments["count"][measured] = len(present)
        mean, m2 = _mean_and_m2(present, column)
        moments["mean"][measured], moments["m2"][measured] = mean, m2
        measured += 1
    return moments


def _measured(signature: Signature) -> list[Column]:
    return [column for column in signature.columns if column.kind != "categorical"]


def _mean_and_m2(present: np.ndarray, column: Column) -> tuple[float, float]:
    if not len(present):
        return 0.0, 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(present.mean())
        m2 = float(np.square(present - mean).sum())
    if not np.isfinite(mean + m2):
        raise InvalidInputError(
            f"Column {column.name!r} has values as large as {np.abs(present).max():g}, whose "
            "squares leave the range of a float; divide the column by a large constant.",
            field=column.name,
        )
    return mean, m2


def check_moments(moments: Mapping[str, np.ndarray], signature: Signature, min_rows: int) -> None:
    """Refuse a site's moments that cannot be those of at least ``min_rows`` rows.

    Raises:
        UpdateRejectedError: wrong names, shapes or types, a value that is not finite or is
            negative, counts that do not add up, or fewer rows than ``min_rows``.
    """
    check_update(moments, empty_moments(signature))
    rows = int(moments["rows"][0])
    if rows < min_rows:
        raise UpdateRejectedError(
            f"The site has {rows} rows, fewer than the {min_rows} below which its mean would "
            "tell about single rows; merge it with another site.",
            field="rows",
        )
    for name in ("count", "m2", "missing", "categories"):
        if (moments[name] < 0).any():
            raise UpdateRejectedError(
                f"Array {name!r} has the negative value {moments[name].min()}; "
                "compute it with truststram_lab.learning.statistics.local_moments.",
                field=name,
            )
    for place, (column, present) in enumerate(_present_counts(moments, signature)):
        missing = int(moments["missing"][place])
        if present + missing != rows:
            raise UpdateRejectedError(
                f"Column {column.name!r} has {present} values and {missing} missing ones in "
                f"{rows} rows; they must add up.",
                field=column.name,
            )
    if ((moments["count"] == 0) & ((moments["mean"] != 0) | (moments["m2"] != 0))).any():
        raise UpdateRejectedError(
            "A column without a value has a mean or a sum of squares; both must be 0.",
            field="mean",
        )


def _present_counts(
    moments: Mapping[str, np.ndarray], signature: Signature
) -> list[tuple[Column, int]]:
    # Python integers: sums of a hostile site's counts must not wrap around.
    counts = iter(moments["count"].tolist())
    categories = moments["categories"].tolist()
    present: list[tuple[Column, int]] = []
    at = 0
    for column in signature.columns:
        if column.kind == "categorical":
            width = len(column.categories)
            present.append((column, sum(categories[at : at + width])))
            at += width
        else:
            present.append((column, next(counts)))
    return present


def merge_moments(
    moments: Sequence[Mapping[str, np.ndarray]], signature: Signature, min_site_rows: int = 1
) -> Statistics:
    """The aggregates over all sites, from the sites' moments in the plan's order.

    Variances are population variances (divided by the count). A column without any value
    has neither mean nor variance.

    Raises:
        UpdateRejectedError: there is no site, or ``check_moments`` refuses one.

    Chan, Golub and LeVeque 1979, "Updating Formulae and a Pairwise Algorithm for Computing
    Sample Variances", equation 2.1.
    """
    if not moments:
        raise UpdateRejectedError("No site sent its moments; at least one must.")
    for site in moments:
        check_moments(site, signature, min_site_rows)
    count, mean, m2 = _merge([(s["count"], s["mean"], s["m2"]) for s in moments])
    rows = sum(int(site["rows"][0]) for site in moments)
    missing = _total([site["missing"] for site in moments])
    categories = _total([site["categories"] for site in moments])
    columns: list[ColumnStatistics] = []
    measured = counted = 0
    for place, column in enumerate(signature.columns):
        common = {"name": column.name, "count": rows - missing[place], "missing": missing[place]}
        if column.kind == "categorical":
            width = len(column.categories)
            counts = categories[counted : counted + width]
            counted += width
            columns.append(ColumnStatistics(**common, category_counts=counts))
            continue
        n = count[measured]
        columns.append(
            ColumnStatistics(
                **common,
                mean=float(mean[measured]) if n else None,
                variance=float(m2[measured]) / n if n else None,
            )
        )
        measured += 1
    return Statistics(rows=rows, sites=len(moments), columns=columns)


def joined_moments(moments: Sequence[Mapping[str, np.ndarray]]) -> State:
    """The moments of all sites' rows, in the sites' layout, as if one site had them.

    ``merge_moments`` gives the same aggregates of these as of ``moments``, to rounding.
    """
    count, mean, m2 = _merge([(s["count"], s["mean"], s["m2"]) for s in moments])
    added = {
        name: np.array(_total([site[name] for site in moments]), np.int64)
        for name in ("rows", "missing", "categories")
    }
    return {
        "rows": added["rows"],
        "count": np.array(count, np.int64),
        "mean": mean,
        "m2": m2,
        "missing": added["missing"],
        "categories": added["categories"],
    }


def _total(counts: Sequence[np.ndarray]) -> list[int]:
    return [sum(values) for values in zip(*(array.tolist() for array in counts), strict=True)]


def _merge(
    parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[list[int], np.ndarray, np.ndarray]:
    total = np.zeros(parts[0][0].shape, np.float64)
    mean = np.zeros_like(total)
    m2 = np.zeros_like(total)
    with np.errstate(over="ignore", invalid="ignore"):
        for part_count, part_mean, part_m2 in parts:
            joined = total + part_count
            # Where neither side has a value, any divisor serves: the numerators are 0.
            divisor = np.where(joined > 0, joined, 1.0)
            gap = part_mean - mean
            m2 = m2 + part_m2 + gap * gap * (total * part_count / divisor)
            mean = mean + gap * (part_count / divisor)
            total = joined
    if not (np.isfinite(mean).all() and np.isfinite(m2).all()):
        raise UpdateRejectedError(
            "The sites' means lie so far apart that their variance leaves the range of a float; "
            "scale the column down at every site.",
            field="mean",
        )
    return _total([count for count, _, _ in parts]), mean, m2
