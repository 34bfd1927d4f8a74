"""Is the federation worth it, site by site: a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from truststram_lab.exceptions import ConflictError
from truststram_lab.learning import weights
from truststram_lab.schemas.federation import Run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["sites_frame"]


def sites_frame(run: Run, names: Sequence[str], fetch: Callable[[str], bytes]) -> pd.DataFrame:
    """One line a site or virtual client: ``rows``, ``local_accuracy`` (its model trained alone),
    ``global_accuracy``, with own models ``personal_accuracy``, and ``loses``, whether it would do
    better alone.

    Virtual clients are scored on the held-out rows weighted to their own mix of classes, sites on
    all held-out rows alike.

    Args:
        names: of all virtual clients, in the plan's order.
        fetch: gives a stored file by its digest.

    Raises:
        ConflictError: nothing is compared yet.
    """
    import pandas as pd

    report = run.report
    found: dict[str, Any]
    if report is not None and report.clients is not None and report.clients.table_sha256:
        found = weights.decode(fetch(report.clients.table_sha256))[0]
        index = [*names]
    elif report is not None and report.federated is not None and report.pooled is not None:
        sites = [site for site in report.sites if site.alone is not None]
        found = {
            "rows": [site.rows for site in sites],
            "local_accuracy": [site.alone.accuracy for site in sites if site.alone is not None],
            "global_accuracy": [report.federated.accuracy] * len(sites),
        }
        index = [site.name for site in sites]
    else:
        raise ConflictError(
            f"Run {run.name} has not compared its sites yet; wait for its end, or go on with "
            f"%ts_runs {run.name} resume."
        )
    table = pd.DataFrame({name: list(values) for name, values in found.items()}, index=index)
    table.index.name = "site"
    return table.assign(loses=table["local_accuracy"] > table["global_accuracy"])
