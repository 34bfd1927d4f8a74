"""What a person says about a run, as the draft of one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.federated.draft import Draft
from truststram_lab.federated.hosted.wish import HostWish
from truststram_lab.federated.options import Options, filters_of, unit_of
from truststram_lab.federated.preparation import prepare
from truststram_lab.federated.record_privacy import PRIVATE_LEARNING_RATE
from truststram_lab.preprocessing.demo import DEMO_NAMES, load_demo
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.filters import Filter
from truststram_lab.schemas.personal import AnyPersonal
from truststram_lab.schemas.strategies import AnyStrategy, as_strategy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["drafted"]


def drafted(
    data: str | pd.DataFrame,
    *,
    target: str | None = None,
    name: str | None = None,
    clients: int = 5,
    rounds: int = 10,
    split: str = "dirichlet:0.5",
    by: str | None = None,
    positive: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    allow_one_class: bool = False,
    label: str = "df",
    strategy: str | Mapping[str, Any] | AnyStrategy = "fedavg",
    filters: Sequence[str | Mapping[str, Any] | Filter] = (),
    dp: float | None = None,
    delta: float | None = None,
    clip: float = 1.0,
    dp_unit: str = "record",
    dp_limit: float | None = None,
    bounds: Mapping[str, Any] | None = None,
    fraction: float | None = None,
    drop: float | None = None,
    stragglers: float | None = None,
    hostile: str | None = None,
    personal: str | AnyPersonal | None = None,
    deploy: bool = True,
) -> Draft:
    """What ``federate`` would announce, checked; the platform is not asked.

    Raises:
        InvalidInputError: the data or the options cannot be used.
    """
    options = Options(
        strategy=as_strategy(strategy),
        filters=filters_of(filters),
        dp=dp,
        delta=delta,
        clip=clip,
        unit=unit_of(dp_unit),
        bounds=bounds,
        dp_limit=dp_limit,
    )
    if learning_rate is None and options.clips_rows:
        learning_rate = PRIVATE_LEARNING_RATE
    frame, chosen = _table(data, target, positive, label)
    model = _model_name(name or chosen["model"])
    wish = HostWish(fraction, drop, stragglers, hostile, personal)
    sites = clients if by is None or by not in frame else int(frame[by].nunique())
    host = wish if wish.needs_host(sites) else None
    prepared = prepare(
        frame,
        target=chosen["target"],
        source_kind=chosen["kind"],
        source_name=chosen["label"],
        clients=clients,
        split=split,
        by=by,
        positive=chosen["positive"],
        seed=seed,
        allow_one_class=allow_one_class,
        hosted=host is not None,
    )
    local = _local(rounds=rounds, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
    return Draft.of(
        prepared,
        model=model,
        rounds=rounds,
        local=local,
        options=options,
        host=host,
        deploy=deploy,
    )


def _table(
    data: Any, target: str | None, positive: str | None, label: str
) -> tuple[pd.DataFrame, dict[str, Any]]:
    if isinstance(data, str):
        demo = load_demo(data)
        return demo.frame, {
            "model": demo.name,
            "kind": "demo",
            "label": demo.name,
            "target": target or demo.target,
            "positive": positive or demo.positive,
        }
    if not hasattr(data, "columns"):
        raise InvalidInputError(
            f"A {type(data).__name__} is no table; give a DataFrame or a demo data set: "
            f"{', '.join(DEMO_NAMES)}.",
            field="data",
        )
    if target is None:
        raise InvalidInputError(
            "Which column is to be predicted? Say it with --target; the columns are "
            f"{', '.join(repr(str(column)) for column in data.columns)}.",
            field="target",
            choices=[str(column) for column in data.columns],
        )
    return data, {
        "model": label,
        "kind": "dataframe",
        "label": label,
        "target": target,
        "positive": positive,
    }


def _model_name(text: str) -> str:
    """``text`` as a model's name: lower case, digits, dots, dashes and underscores."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.casefold()).strip("-._")[:90]
    if not name:
        raise InvalidInputError(
            f"{text!r} holds no letter or digit to name a model by; choose one with --as.",
            field="name",
        )
    return name


def _local(*, rounds: int, **given: Any) -> LocalTraining:
    limits = {
        "rounds": (1, 100_000),
        "epochs": (1, 10_000),
        "batch_size": (1, 1_000_000),
        "learning_rate": (0, 100),
    }
    for key, value in {"rounds": rounds, **given}.items():
        low, high = limits[key]
        if value is not None and not (low <= value <= high and value > 0):
            raise InvalidInputError(
                f"{key} is {value}; it goes from {low if low else 'above 0'} to {high:,}.",
                field=key,
            )
    return LocalTraining(**{key: value for key, value in given.items() if value is not None})
