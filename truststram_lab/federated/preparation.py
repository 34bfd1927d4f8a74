"""From one table to a federation: what is held out, and which rows each site has.

Everything that can be wrong with the data is said here, before anything trains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.partition import split_by_column, stratified_holdout
from truststram_lab.learning.splits import deal_rows
from truststram_lab.preprocessing import fingerprint, infer_signature, target_codes
from truststram_lab.schemas.federation import CreateRun, DataSource
from truststram_lab.schemas.registry import Architecture, DenseLayer
from truststram_lab.schemas.splits import Split, parse_split, split_text
from truststram_lab.schemas.tables import Signature

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "HOST",
    "MIN_SITE_ROWS",
    "MOST_PARTICIPANTS",
    "Prepared",
    "SiteData",
    "default_architecture",
    "network_of",
    "prepare",
    "prepare_again",
]

#: Fewer rows than this at a site, and its mean would say something about single people.
MIN_SITE_ROWS = 5

#: Up to so many simulated sites are participants of their own; more are trained by one host.
MOST_PARTICIPANTS = 20

#: The participant that trains all virtual clients of a hosted run.
HOST = "simulation host"

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
    """A federation that is ready to be simulated.

    Attributes:
        table: the feature columns of all rows to train on; ``codes`` their class indices.
        parts: a site's name -> the places of its rows in ``table``, sorted.
    """

    signature: Signature
    table: pd.DataFrame
    codes: np.ndarray
    parts: dict[str, np.ndarray]
    held_out: SiteData
    source: DataSource
    split: Split
    seed: int

    @cached_property
    def sites(self) -> list[SiteData]:
        """Each site's own rows."""
        return [
            SiteData(name, self.table.iloc[part].reset_index(drop=True), self.codes[part])
            for name, part in self.parts.items()
        ]

    def class_counts(self) -> np.ndarray:
        """Rows by site and class, int (sites, classes), in the order of the sites."""
        classes = len(self.signature.classes)
        return np.stack(
            [np.bincount(self.codes[part], minlength=classes) for part in self.parts.values()]
        )

    def as_host(self) -> Prepared:
        """The same rows as the platform sees them in a hosted run: all of one participant."""
        return replace(self, parts={HOST: np.arange(len(self.codes))})


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
    hosted: bool = False,
) -> Prepared:
    """Hold out rows, stratified by class, and deal the others to the sites.

    Args:
        frame: one row an observation, ``target`` and the features as columns.
        clients: number of sites; ``by`` has as many as values.
        split: ``dirichlet:ALPHA``, the label skew between sites (Hsu et al. 2019), or another
            of ``schemas.splits``.
        by: column whose values are the sites; it is no feature.
        holdout: share of rows, in (0, 1), kept for scoring before anything is dealt.
        allow_one_class: accept sites in which every row has the same class.
        hosted: the sites are virtual clients of one host: each has a row or more, of any class.

    Raises:
        InvalidInputError: the table, the target or the split cannot be used.
    """
    wanted = parse_split(split)
    features, site_values = _without_site_column(frame, target, by)
    signature = infer_signature(features, target, positive)
    codes = target_codes(features, signature)
    _check_site_count(clients, len(frame), by)

    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x5EED]))
    train, test = stratified_holdout(codes, holdout, rng)
    table = features.drop(columns=[target])
    moved = 0
    if site_values is None:
        dealt, moved = deal_rows(
            codes[train],
            clients,
            wanted,
            rng,
            min_rows=_least_rows(len(train), clients) if hosted else MIN_SITE_ROWS,
            min_classes=None if hosted else 1 if allow_one_class else 2,
        )
        word = "client" if hosted else "site"
        parts = {f"{word} {i + 1}": part for i, part in enumerate(dealt)}
    else:
        parts = split_by_column([str(value) for value in site_values.iloc[train]])
        wanted = Split(kind="column", column=by)

    prepared = Prepared(
        signature=signature,
        table=table.iloc[train].reset_index(drop=True),
        codes=codes[train],
        parts=parts,
        held_out=SiteData("held out", table.iloc[test].reset_index(drop=True), codes[test]),
        source=DataSource(
            kind="demo" if source_kind == "demo" else "dataframe",
            name=source_name,
            rows=len(frame),
            sha256=fingerprint(frame),
        ),
        split=wanted.model_copy(
            update={
                "holdout_fraction": holdout,
                "allow_one_class": allow_one_class,
                "moved": moved,
            }
        ),
        seed=seed,
    )
    if not hosted:
        _check_sites(prepared.sites, signature, allow_one_class=allow_one_class)
    return prepared


def _least_rows(rows: int, clients: int) -> int:
    """Rows of the smallest virtual client: at most ``MIN_SITE_ROWS``, and half of an equal share.

    Nothing is told of a single virtual client, so one row is enough where rows are scarce.
    """
    return max(1, min(MIN_SITE_ROWS, rows // (2 * max(clients, 1))))


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
        clients=len(plan.sites) if plan.hosted is None else plan.hosted.clients,
        split=split_text(split),
        by=split.column,
        positive=signature.positive_class,
        seed=plan.seed,
        holdout=split.holdout_fraction,
        allow_one_class=split.allow_one_class,
        hosted=plan.hosted is not None,
    )
    same_sites = plan.hosted is not None or plan.sites == list(prepared.parts)
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
