"""From one table to a federation: what is held out, and which rows each site has.

Everything that can be wrong with the data is said here, before anything trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.partition import dirichlet_split, split_by_column, stratified_holdout
from truststram_lab.preprocessing import fingerprint, infer_signature, target_codes
from truststram_lab.schemas.federation import CreateRun, DataSource, Split
from truststram_lab.schemas.registry import Architecture, DenseLayer
from truststram_lab.schemas.tables import Signature

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Prepared",
    "SiteData",
    "default_architecture",
    "network_of",
    "parse_split",
    "prepare",
    "prepare_again",
]

#: Fewer rows than this at a site, and its mean would say something about single people.
MIN_SITE_ROWS = 5

#: Hidden units of the default network. Chosen on the demo data sets over ten seeds.
HIDDEN_UNITS = 64


@dataclass(frozen=True)
class SiteData:
    """The rows of one site: ``frame`` has the feature columns, ``codes`` the class indices."""

    name: str
    frame: pd.DataFrame
    codes: np.ndarray

    def class_rows(self, signature: Signature) -> dict[str, int]:
        """Rows by class label."""
        counts = np.bincount(self.codes, minlength=len(signature.classes))
        return {label: int(n) for label, n in zip(signature.classes, counts, strict=True)}


@dataclass(frozen=True)
class Prepared:
    """A federation that is ready to be simulated."""

    signature: Signature
    sites: list[SiteData]
    held_out: SiteData
    source: DataSource
    split: Split
    seed: int


def parse_split(text: str) -> float:
    """The concentration of ``dirichlet:ALPHA``, a positive number; ``dirichlet`` means 0.5."""
    kind, _, alpha = text.partition(":")
    if kind == "dirichlet":
        try:
            value = float(alpha) if alpha else 0.5
        except ValueError:
            value = float("nan")
        if 0 < value <= 1e6:
            return value
    raise InvalidInputError(
        f"{text!r} is not a split; write dirichlet:ALPHA with ALPHA above 0, such as "
        "dirichlet:0.5 (small: sites differ much; 100: all alike), or deal by a column with --by.",
        field="split",
        choices=["dirichlet:0.5"],
    )


def prepare(
    frame: pd.DataFrame,
    *,
    target: str,
    source_kind: str,
    source_name: str,
    clients: int = 5,
    split: str = "dirichlet:0.5",
    by: str | None = None,
    positive: str | None = None,
    seed: int = 0,
    holdout: float = 0.25,
    allow_one_class: bool = False,
) -> Prepared:
    """Hold out rows, stratified by class, and deal the others to the sites.

    Args:
        frame: one row an observation, ``target`` and the features as columns.
        clients: number of sites, for a Dirichlet split; ``by`` has as many as values.
        split: ``dirichlet:ALPHA``, the label skew between sites (Hsu et al. 2019).
        by: column whose values are the sites; it is no feature.
        holdout: share of rows, in (0, 1), kept for scoring before anything is dealt.
        allow_one_class: accept sites in which every row has the same class.

    Raises:
        InvalidInputError: the table, the target or the split cannot be used.
    """
    alpha = parse_split(split)
    features, site_values = _without_site_column(frame, target, by)
    signature = infer_signature(features, target, positive)
    codes = target_codes(features, signature)
    _check_site_count(clients, len(frame), by)

    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x5EED]))
    train, test = stratified_holdout(codes, holdout, rng)
    table = features.drop(columns=[target])
    if site_values is None:
        parts = dirichlet_split(
            codes[train],
            clients,
            alpha,
            rng,
            min_rows=MIN_SITE_ROWS,
            min_classes=1 if allow_one_class else 2,
        )
        named = {f"site {i + 1}": part for i, part in enumerate(parts)}
    else:
        named = split_by_column([str(value) for value in site_values.iloc[train]])

    sites = [
        SiteData(name, table.iloc[train[part]].reset_index(drop=True), codes[train[part]])
        for name, part in named.items()
    ]
    _check_sites(sites, signature, allow_one_class=allow_one_class)
    return Prepared(
        signature=signature,
        sites=sites,
        held_out=SiteData("held out", table.iloc[test].reset_index(drop=True), codes[test]),
        source=DataSource(
            kind="demo" if source_kind == "demo" else "dataframe",
            name=source_name,
            rows=len(frame),
            sha256=fingerprint(frame),
        ),
        split=Split(
            kind="dirichlet" if by is None else "column",
            alpha=alpha if by is None else None,
            column=by,
            holdout_fraction=holdout,
            allow_one_class=allow_one_class,
        ),
        seed=seed,
    )


def prepare_again(frame: pd.DataFrame, plan: CreateRun) -> Prepared:
    """What :func:`prepare` made when the run of ``plan`` began: the same rows in the same places.

    Raises:
        InvalidInputError: ``frame`` is not the table that the run began with, or the plan is
            of no simulation.
    """
    source, split, signature = plan.source, plan.split, plan.signature
    if source is None or split is None or signature is None:
        raise InvalidInputError(
            f"The run of {plan.model} was no simulation, so there is nothing to prepare again."
        )
    prepared = prepare(
        frame,
        target=signature.target,
        source_kind=source.kind,
        source_name=source.name,
        clients=len(plan.sites),
        split="dirichlet" if split.alpha is None else f"dirichlet:{split.alpha!r}",
        by=split.column,
        positive=signature.positive_class,
        seed=plan.seed,
        holdout=split.holdout_fraction,
        allow_one_class=split.allow_one_class,
    )
    same_sites = plan.sites == [site.name for site in prepared.sites]
    if prepared.source.sha256 != source.sha256 or not same_sites:
        raise InvalidInputError(
            f"This table is not the one that the run of {plan.model} began with (its rows or "
            "columns differ); give the same table, or start a new run.",
            field="data",
        )
    return prepared


def network_of(plan: CreateRun) -> Architecture:
    """The network that a plan trains.

    Raises:
        InvalidInputError: the plan is of named arrays only.
    """
    if plan.architecture is None:
        raise InvalidInputError(
            f"The run of {plan.model} trains arrays of a model that only its participants know; "
            "they train it, with their own code."
        )
    return plan.architecture


def default_architecture(width: int, signature: Signature) -> Architecture:
    """One hidden layer of rectified units, then the logits (one for two classes)."""
    outputs = 1 if signature.positive_class is not None else len(signature.classes)
    return Architecture(
        inputs=width,
        layers=[DenseLayer(units=HIDDEN_UNITS, activation="relu"), DenseLayer(units=outputs)],
    )


def _without_site_column(
    frame: pd.DataFrame, target: str, by: str | None
) -> tuple[pd.DataFrame, pd.Series | None]:
    if by is None:
        return frame, None
    if by not in frame.columns:
        raise InvalidInputError(
            f"There is no column {by!r} to deal the rows by; the columns are "
            f"{', '.join(map(repr, frame.columns))}.",
            field="by",
            choices=[str(name) for name in frame.columns],
        )
    if by == target:
        raise InvalidInputError(
            f"{by!r} is the target, so dealing by it gives every site one class; "
            "choose another column for --by.",
            field="by",
        )
    missing = int(frame[by].isna().sum())
    if missing:
        raise InvalidInputError(
            f"Column {by!r} is empty in {missing} of {len(frame)} rows, so their site is unknown; "
            f"drop them first: df.dropna(subset=[{by!r}]).",
            field="by",
        )
    return frame.drop(columns=[by]), frame[by]


def _check_site_count(clients: int, rows: int, by: str | None) -> None:
    if by is not None:
        return
    if clients < 1:
        raise InvalidInputError(
            f"{clients} sites cannot train anything; --clients takes 1 or more.", field="clients"
        )
    if clients > rows:
        raise InvalidInputError(
            f"{clients} sites are more than the table's {rows} rows; "
            f"choose --clients {max(1, rows // (4 * MIN_SITE_ROWS))} or fewer.",
            field="clients",
        )


def _check_sites(sites: list[SiteData], signature: Signature, *, allow_one_class: bool) -> None:
    for site in sites:
        rows = len(site.codes)
        if rows < MIN_SITE_ROWS:
            raise InvalidInputError(
                f"Site {site.name!r} has {rows} row{'s' * (rows != 1)} to train on; "
                f"at least {MIN_SITE_ROWS} are needed, so that its mean tells nothing about one "
                "person: merge it with another site or drop its rows.",
                field="by",
            )
        present = [label for label, n in site.class_rows(signature).items() if n]
        if len(present) == 1 and not allow_one_class:
            raise InvalidInputError(
                f"All {rows} rows of site {site.name!r} are {present[0]!r}, so it cannot learn "
                "the difference alone; merge it with another site, or accept it with "
                "--allow-one-class.",
                field="by",
            )
