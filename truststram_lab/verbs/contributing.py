"""What each site of a run brought to its model, and the model without some of them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from truststram_lab.exceptions import ConflictError, InvalidInputError
from truststram_lab.federated import FederatedRun
from truststram_lab.render import Card, contributions_card, without_card
from truststram_lab.schemas.contributions import Contributions, ModelScore
from truststram_lab.schemas.federation import Run
from truststram_lab.widgets.kernel import in_kernel, publish

from . import session as sessions
from .results import Answer

if TYPE_CHECKING:
    import pandas as pd

    from truststram_lab.federated.comparison import HeldOut
    from truststram_lab.federated.contribution import Game
    from truststram_lab.federated.preparation import SiteData
    from truststram_lab.learning.weights import State

__all__ = ["RunContributions", "RunWithout", "contribution"]

#: Progress is told about so often, in seconds.
_TELL_S = 0.5


@dataclass(frozen=True, repr=False)
class RunContributions(Answer):
    """What each site of a run is worth, by leave-one-out and by its Shapley value."""

    run: Run
    found: Contributions

    def to_frame(self) -> Any:
        """A DataFrame of one line a site; of the loss, its decrease."""
        import pandas as pd

        lines = [
            {
                "site": one.site,
                "rounds": one.rounds,
                **{
                    f"{measure}_{name}": value
                    for measure in ("accuracy", "loss")
                    for name, value in getattr(one, measure)
                },
            }
            for one in self.found.sites
        ]
        return pd.DataFrame(lines).set_index("site")

    def card(self) -> Card:
        return contributions_card(self.run, self.found)


@dataclass(frozen=True, repr=False)
class RunWithout(Answer):
    """The model that a run's stored updates make without those of some sites.

    Attributes:
        dropped: names of the sites that were left out.
        everybody, without: scores with all sites, and without these.
        state: the weights of the model without them, float arrays by name.
        rows: how many rows score.
    """

    run: Run
    dropped: list[str]
    everybody: ModelScore
    without: ModelScore
    state: State
    rows: int

    def card(self) -> Card:
        return without_card(self.run, self.dropped, self.everybody, self.without, self.rows)


def contribution(
    name: str,
    *,
    drop: str | Sequence[str] | None = None,
    data: pd.DataFrame | None = None,
    pairs: int = 100,
    tolerance: float = 0.01,
    seed: int = 0,
) -> RunContributions | RunWithout:
    """What each site brought to a run's model, or the model without some sites.

    Computed here, from the updates that the platform keeps (``federated.contribution``): no
    site trains again. An interrupt returns what was counted until then.

    Args:
        name: of a run with two sites or more, such as ``breast-cancer-3``.
        drop: a site's name, or several: show the model without their updates.
        data: rows that score. Of a simulation of this kernel, or of a demo data set, the
            held-out rows are known; of a simulation of another kernel give the whole table
            again; of a real federation give rows of your own, with the target column.
        pairs: with more than ten sites, orders that are walked there and back.
        tolerance: with more than ten sites, a walk stops where so little of the whole range is
            left; 0 walks to the end.
        seed: of the orders.

    Raises:
        RunNotFoundError: nothing has that name; the nearest are in the sentence.
        ConflictError: the run cannot be taken apart, for example because it was private.
        InvalidInputError: a site's name, the rows or a number cannot be used.
    """
    from truststram_lab.federated.contribution import check_apart, contributions, game_of

    session = sessions.require("looking at contributions")
    mine = session.runs.get(name)
    run = mine.snapshot() if mine is not None else session.client.runs.get(name)
    updates = session.client.runs.updates(run.id).items
    check_apart(run, updates)  # before rows are asked for: none would help
    rows = _rows(run, mine if isinstance(mine, FederatedRun) else None, data)
    scores = _held_out(run, rows)

    def score(state: State) -> ModelScore:
        found = scores.evaluate(state)
        return ModelScore(accuracy=found.score.accuracy, loss=found.loss)

    rounds = session.client.runs.rounds(run.id).items
    game = game_of(run, rounds, updates, session.client.blobs.get, score)
    count = len(rows.codes)
    if drop is not None:
        return _without(run, game, [drop] if isinstance(drop, str) else list(drop), count)
    progress = _Progress()
    try:
        found = contributions(
            game, rows=count, pairs=pairs, tolerance=tolerance, seed=seed, progress=progress.tell
        )
    finally:
        progress.end()
    return RunContributions(run, found)


def _without(run: Run, game: Game, names: list[str], rows: int) -> RunWithout:
    left = game.without(names)
    return RunWithout(
        run, names, game.score(game.everybody), game.score(left), game.model(left), rows
    )


def _held_out(run: Run, rows: SiteData) -> HeldOut:
    from truststram_lab.federated.comparison import HeldOut

    plan = run.plan
    if plan.architecture is None or plan.signature is None or run.statistics is None:
        raise _no_table(run)
    return HeldOut(plan.architecture, plan.signature, run.statistics, rows)


def _rows(run: Run, mine: FederatedRun | None, data: pd.DataFrame | None) -> SiteData:
    from truststram_lab.federated.preparation import SiteData, prepare_again
    from truststram_lab.preprocessing import load_demo, target_codes

    source, signature = run.plan.source, run.plan.signature
    if mine is not None and data is None:
        return mine.prepared.held_out
    if source is not None and source.kind == "demo" and data is None:
        return prepare_again(load_demo(source.name).frame, run.plan).held_out
    if data is None:
        which = "the sites' rows are theirs" if source is None else "its kernel is gone"
        raise InvalidInputError(
            f"Which rows shall score the models of {run.name}? Its held-out rows are not here, as "
            f"{which}; give a DataFrame: %ts_runs {run.name} contribution --data "
            f"{'df' if source is None else source.name}.",
            field="data",
        )
    if source is not None:
        return prepare_again(data, run.plan).held_out
    if signature is None:
        raise _no_table(run)
    return SiteData("rows", data, target_codes(data, signature))


def _no_table(run: Run) -> ConflictError:
    return ConflictError(
        f"Run {run.name} exchanged named arrays only, so nobody here knows how to score them; "
        "contributions need a model of a table."
    )


class _Progress:
    """One line in a notebook, replaced in place and gone at the end; nothing elsewhere."""

    def __init__(self) -> None:
        self._id = f"contribution-{uuid.uuid4()}"
        self._shown = False
        self._last = time.monotonic()

    def tell(self, text: str) -> None:
        now = time.monotonic()
        if not in_kernel() or now - self._last < _TELL_S:
            return
        self._last = now
        said = f"Contributions: {text}. Stop: Kernel > Interrupt keeps what is counted."
        publish({"text/plain": said}, self._id, update=self._shown)
        self._shown = True

    def end(self) -> None:
        if self._shown:
            publish({"text/plain": ""}, self._id, update=True)
            self._shown = False
