"""Leave-one-out and Shapley values of a run's sites: exact, or by truncated sampled orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.explainability.shapley import shapley_weights
from truststram_lab.schemas.contributions import Contributions, SiteContribution, Worth

from .contribution import Game

__all__ = ["EXACT_SITES", "contributions"]

#: Up to so many sites every coalition is counted: 1024 models.
EXACT_SITES = 10

_MEASURES = ("accuracy", "loss")


def contributions(
    game: Game,
    *,
    rows: int,
    pairs: int = 100,
    tolerance: float = 0.01,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Contributions:
    """Leave-one-out and Shapley values of every site, on both measures.

    Up to ``EXACT_SITES`` sites every coalition is counted (Shapley 1953). Beyond, orders of the
    sites are drawn and walked there and back (antithetic: Mitchell et al. 2022, section 4.1),
    and a walk stops where what is missing to the whole federation's score is at most
    ``tolerance`` of the whole range, in both measures (truncated Monte Carlo: Ghorbani & Zou
    2019, "Data Shapley", algorithm 1, https://arxiv.org/abs/1904.02868).

    An interrupt ends it with what was counted until then.

    Args:
        rows: how many rows score, for the result.
        pairs: orders to walk, 2 or more.
        progress: told in a few words how far it is.
    """
    if pairs < 2:
        raise InvalidInputError(
            f"pairs={pairs} has no standard error; walk 2 orders or more.", field="pairs"
        )
    if not 0 <= tolerance < 1:
        raise InvalidInputError(
            f"tolerance={tolerance} is no share of the range; choose 0 (never stop early) or "
            "more, below 1.",
            field="tolerance",
        )
    found = _Found(game, rows, seed)
    try:
        _leave_one_out(game, found, progress)
        if game.least_members() > 1:
            found.why = (
                f"{game.plan.strategy} takes {game.least_members()} updates or more, so most sets "
                "of sites make no model and Shapley values are not defined"
            )
        elif len(game.sites) <= EXACT_SITES:
            _exact(game, found, progress)
        else:
            _sampled(game, found, pairs, tolerance, np.random.default_rng(seed), progress)
    except KeyboardInterrupt:
        found.complete = False
    return found.result()


class _Found:
    """What is known so far; the Shapley values are (sites, measures)."""

    def __init__(self, game: Game, rows: int, seed: int) -> None:
        self._game = game
        self._rows = rows
        self._seed = seed
        self.left_out: dict[int, np.ndarray] = {}
        self.values: np.ndarray | None = None
        self.errors: np.ndarray | None = None
        self.pairs = 0
        self.truncated = 0.0
        self.why: str | None = None
        self.complete = True
        # Before anything can be interrupted: without these two nothing can be shown.
        self.nobody = game.score(frozenset())
        self.everybody = game.score(game.everybody)

    def result(self) -> Contributions:
        game = self._game
        total = game.value(game.everybody) - game.value(frozenset())
        residual: dict[str, float] = {}
        if self.values is not None:
            gap = total - self.values.sum(axis=0)
            residual = dict(zip(_MEASURES, gap.tolist(), strict=True))
        exact = self.values is not None and self.errors is None
        why = self.why
        if self.values is None and why is None:
            why = "it was interrupted before enough sets of sites were counted"
        return Contributions(
            method="leave_one_out" if self.values is None else "exact" if exact else "permutations",
            why=why,
            nobody=self.nobody,
            everybody=self.everybody,
            sites=[
                SiteContribution(
                    site=name,
                    rounds=game.rounds_of(place),
                    accuracy=self._worth(place, 0),
                    loss=self._worth(place, 1),
                )
                for place, name in enumerate(game.sites)
            ],
            evaluations=game.evaluations,
            pairs=self.pairs,
            truncated=self.truncated,
            residual=residual,
            complete=self.complete,
            rows=self._rows,
            seed=self._seed,
        )

    def _worth(self, place: int, measure: int) -> Worth:
        left_out = self.left_out.get(place)
        return Worth(
            leave_one_out=None if left_out is None else float(left_out[measure]),
            shapley=None if self.values is None else float(self.values[place, measure]),
            error=None if self.errors is None else float(self.errors[place, measure]),
        )


def _leave_one_out(game: Game, found: _Found, progress: Callable[[str], None]) -> None:
    whole = game.value(game.everybody)
    for place in range(len(game.sites)):
        progress(f"without {game.sites[place]}")
        others = game.everybody - {place}
        if game.is_defined(others):
            found.left_out[place] = whole - game.value(others)


def _exact(game: Game, found: _Found, progress: Callable[[str], None]) -> None:
    present, shares = shapley_weights(len(game.sites))
    values = []
    for number, row in enumerate(present):
        if number % 16 == 0:
            progress(f"set {number + 1} of {len(present)}")
        values.append(game.value(frozenset(np.flatnonzero(row).tolist())))
    found.values = shares @ np.array(values)


def _sampled(
    game: Game,
    found: _Found,
    pairs: int,
    tolerance: float,
    rng: np.random.Generator,
    progress: Callable[[str], None],
) -> None:
    count = len(game.sites)
    whole = game.value(game.everybody)
    near = tolerance * np.abs(whole - game.value(frozenset()))
    gains, skipped = [], 0
    for pair in range(pairs):
        progress(f"order {pair + 1} of {pairs}, {game.evaluations} models")
        order = rng.permutation(count)
        both = []
        for walk in (order, order[::-1]):
            steps, left = _walk(game, walk, whole, near)
            both.append(steps)
            skipped += left
        gains.append((both[0] + both[1]) / 2)
        found.pairs = pair + 1
        found.truncated = skipped / (2 * count * found.pairs)
        if found.pairs >= 2:
            seen = np.array(gains)
            found.values = seen.mean(axis=0)
            found.errors = seen.std(axis=0, ddof=1) / np.sqrt(found.pairs)


def _walk(
    game: Game, order: Sequence[int] | np.ndarray, whole: np.ndarray, near: np.ndarray
) -> tuple[np.ndarray, int]:
    """What each site adds on the way, (sites, measures), and how many steps were left out."""
    gains = np.zeros((len(game.sites), len(_MEASURES)))
    last = game.value(frozenset())
    members: set[int] = set()
    for step, site in enumerate(_places(order)):
        if step and (np.abs(whole - last) <= near).all():
            return gains, len(game.sites) - step
        members.add(site)
        now = game.value(frozenset(members))
        gains[site] = now - last
        last = now
    return gains, 0


def _places(order: Sequence[int] | np.ndarray) -> Iterator[int]:
    return (int(place) for place in order)
