"""Take part in a federation with the data of this kernel."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.federated.bounds import checked_bounds
from truststram_lab.federated.joined_work import check_function
from truststram_lab.federated.options import filters_of
from truststram_lab.federated.site_preview import preview
from truststram_lab.federated.site_run import SiteRun
from truststram_lab.federated.site_table import SiteTable, read_site_table
from truststram_lab.preprocessing.demo import load_demo
from truststram_lab.schemas.personal import AnyPersonal, parse_personal

from .joining import find_door, policy_of, run_named
from .participant_results import Exported, JoinPreview
from .site_script import write_script
from .site_view import follow_site

if TYPE_CHECKING:
    import pandas as pd

    from truststram_lab.schemas.filters import Filter

__all__ = ["join", "joined_to"]

#: What this kernel takes part in, by platform and ``federation/site``.
_joined: dict[tuple[str, str], SiteRun] = {}


def join(
    federation: str,
    data: str | pd.DataFrame,
    *,
    target: str | None = None,
    site: str | None = None,
    train: Callable[..., Any] | None = None,
    rounds_of: str | None = None,
    positive: str | None = None,
    personal: str | AnyPersonal | None = None,
    filters: Sequence[str | Mapping[str, Any] | Filter] = (),
    max_clip: float | None = None,
    min_noise: float | None = None,
    max_epsilon: float | None = None,
    max_rounds: int | None = None,
    allow_strategy: Sequence[str] | None = None,
    allow_model: Sequence[str] | None = None,
    no_statistics: bool = False,
    bounds: Mapping[str, Any] | None = None,
    dp_limit: float | None = None,
    token_env: str | None = None,
    dry_run: bool = False,
    export: str | Path | None = None,
    background: bool = False,
) -> SiteRun | JoinPreview | Exported:
    """Take part in a federation with the data of this kernel; only updates leave it.

    Args:
        federation: its name.
        data: this site's DataFrame, or the name of a demo data set.
        target: the column to predict; needed for a DataFrame.
        site: which site this is; its invitation's own name when left out.
        train: ``train(state)`` or ``fit(parameters, config)``, called in this kernel; None
            trains the run's network. Parameters named ``x`` and ``y`` get the encoded rows.
        rounds_of: take part in this run only.
        positive: the class that is looked for, where there are two.
        personal: keep a model of this site's own beside the federation's, ``ditto`` or
            ``ditto:lambda=0.1`` (0 or more: the pull to the federation's model), or
            ``fedper:head=LAYERS``. It is trained and scored here and never leaves.
        filters: what this site does to every update before the federation's own, in order, as
            in ``federate``; clipping and noise count for its floor.
        max_clip, min_noise, max_epsilon, max_rounds, allow_strategy, allow_model: this site's
            floor, see ``SitePolicy``; a run below it is declined.
        no_statistics: no means or variances of columns leave, either.
        bounds: numeric column -> (least, greatest possible value); needed where a run protects
            rows, because the rows' own means would give them away.
        dp_limit: the most epsilon that may ever be spent on this data, over all runs and
            federations; stays set. A round beyond it is declined.
        token_env: the environment variable that has this site's token.
        dry_run: say what would leave and what these rows have spent, and send nothing; with
            ``rounds_of`` also what that run would cost, for which its plan is looked up.
        export: write a script for an unattended site to this file, and join nothing.
        background: return at once; the site goes on in this kernel.

    Returns:
        The site's part; with ``dry_run`` what would leave, with ``export`` where the script is.

    Raises:
        NotSignedInError, AuthenticationError, NotFoundError, InvalidInputError: before
            anything is sent.
        PermissionDeniedError: the run is below this site's floor, or does not fit its table.
        RunStoppedError: it was stopped; joining again goes on where it was.
    """
    floor = policy_of(
        max_clip=max_clip,
        min_noise=min_noise,
        max_epsilon=max_epsilon,
        max_rounds=max_rounds,
        strategies=None if allow_strategy is None else tuple(allow_strategy),
        models=None if allow_model is None else tuple(allow_model),
        allow_statistics=False if no_statistics else None,
        own_filters=filters_of(filters) or None,
    )
    if train is not None:
        check_function(train)
    kept = None if personal is None else parse_personal(personal)
    table = _site_table(data, target, positive)
    if bounds is not None:
        checked_bounds(bounds, table.signature)
    if export is not None:
        path = Path(export)
        said = write_script(path, federation, table, floor, train, kept, bounds, dp_limit)
        return Exported(path, said)
    if dry_run:
        found = preview(
            table,
            floor,
            federation=federation,
            site=site or "this site",
            own_training=train is not None,
            personal=kept,
            spending=table.spending(dp_limit),
            run=None if rounds_of is None else run_named(rounds_of),
        )
        return JoinPreview(found)
    door = find_door(federation, site, token_env)
    if rounds_of is not None and door.status_of is not None:
        door.status_of(rounds_of)  # a typo would wait for ever
    joined = SiteRun(
        door.port,
        table,
        federation=federation,
        site=door.site,
        place=door.place,
        organisation=door.organisation,
        function=train,
        policy=floor,
        personal=kept,
        run=rounds_of,
        status_of=door.status_of,
        bounds=bounds,
        dp_limit=dp_limit,
    )
    _take_place(joined, door.place)
    return joined.start() if background else follow_site(joined)


def _site_table(data: Any, target: str | None, positive: str | None) -> SiteTable:
    if isinstance(data, str):
        demo = load_demo(data)
        return read_site_table(demo.frame, target or demo.target, positive or demo.positive)
    if target is None and hasattr(data, "columns"):
        columns = [str(column) for column in data.columns]
        raise InvalidInputError(
            "Which column is to be predicted? Say it with --target; the columns are "
            f"{', '.join(map(repr, columns[:40]))}.",
            field="target",
            choices=columns[:40],
        )
    return read_site_table(data, target or "", positive)


def joined_to(federation: str) -> list[SiteRun]:
    """What this kernel takes, or took, part in of a federation."""
    return [run for run in _joined.values() if run.federation == federation]


def _take_place(joined: SiteRun, place: str) -> None:
    """The cell was run again: the new part takes the old one's place."""
    former = _joined.get((place, joined.name))
    if former is not None and former.active:
        former.stop()
    _joined[place, joined.name] = joined


@atexit.register
def _at_exit() -> None:
    # A kernel that leaves must not leave training threads to a dying interpreter.
    for joined in _joined.values():
        if joined.active:
            joined.request_stop()
