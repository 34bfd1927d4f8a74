"""What would leave a site if it joined, told before it does: nothing is sent for it."""

from __future__ import annotations

import platform as machine

import numpy as np

from truststram_lab.learning import weights
from truststram_lab.learning.statistics import local_moments
from truststram_lab.learning.training import initial_state
from truststram_lab.preprocessing import encoded_width
from truststram_lab.schemas.federation import LocalTraining, Run
from truststram_lab.schemas.personal import AnyPersonal
from truststram_lab.schemas.sites import LeavingArrays, SitePreview
from truststram_lab.schemas.tables import Column

from .participation.leaving import leave
from .participation.policy import SitePolicy
from .preparation import default_architecture
from .site_policy import filter_words, policy_words
from .site_spending import SiteSpending, costs_of
from .site_table import SiteTable

__all__ = ["preview"]


def preview(
    table: SiteTable,
    policy: SitePolicy,
    *,
    federation: str,
    site: str,
    organisation: str = "default",
    own_training: bool = False,
    personal: AnyPersonal | None = None,
    spending: SiteSpending | None = None,
    run: Run | None = None,
) -> SitePreview:
    """Everything that would leave, from this table alone; no network is asked.

    The update is of the network that a run trains when its owner chooses nothing: other sites'
    categories can only make it larger. With ``spending`` it has what these rows have spent, and
    with a ``run`` what that would cost them.
    """
    signature = table.signature
    architecture = default_architecture(encoded_width(signature), signature)
    state = initial_state(architecture, 0)
    rng = np.random.default_rng(0)
    # Not zeros: filters say of an update of zeros that there is nothing to send.
    trial = {name: rng.normal(size=a.shape).astype(a.dtype) for name, a in state.items()}
    body, _ = leave(trial, table.rows, {"loss": 1.0}, policy.own_filters, None, lambda _: None)
    moments = weights.encode(local_moments(table.features, signature), {"sample_count": "0"})
    return SitePreview(
        federation=federation,
        site=site,
        registration={
            "device_identifier": f"{federation}/{site}",
            "org_id": organisation,
            "platform": "python",
            "os_version": f"{machine.system()} {machine.release()}",
        },
        columns=signature.columns,
        target=signature.target,
        classes=signature.classes,
        rows=table.rows,
        statistics={column.name: _aggregates(column) for column in signature.columns},
        statistics_bytes=len(moments) if policy.allow_statistics else 0,
        update=[
            LeavingArrays(name=n, shape=[*a.shape], dtype=str(a.dtype), size_bytes=a.nbytes)
            for n, a in state.items()
        ],
        update_bytes=len(body),
        filters=filter_words(policy),
        local=None if own_training else LocalTraining(),
        architecture=architecture,
        metrics=_metrics(table, own_training=own_training),
        policy=policy_words(policy),
        personal=None if personal is None else str(personal),
        spent=[] if spending is None else spending.all_spent(),
        costs=[] if spending is None or run is None else costs_of(run, spending),
    )


def _aggregates(column: Column) -> list[str]:
    if column.kind == "categorical":
        return ["rows with a value", "rows without", *(f"rows of {c!r}" for c in column.categories)]
    return ["rows with a value", "rows without", "mean", "variance"]


def _metrics(table: SiteTable, *, own_training: bool) -> list[str]:
    trained = ["rows trained on"]
    trained += ["what the training function returns"] if own_training else ["training loss"]
    scored = ["rows held out", "loss", "accuracy"]
    scored += [f"share found of {label!r}" for label in table.signature.classes]
    return [*trained, *scored]
