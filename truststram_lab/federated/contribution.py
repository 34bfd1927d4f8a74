"""What each site brought: a game over the sites, played with a run's stored updates.

The value of a coalition is the score of the model that its members' updates alone make: the
run's aggregation is done again, round by round from the initial weights, over the stored updates
of the coalition, with their weights and the strategy's own memory. This is the one-round
reconstruction of Song, Tong & Wei 2019, "Profit Allocation for Federated Learning", section IV
(https://doi.org/10.1109/BigData47090.2019.9006327): nobody trains again, so an update is what
its site sent *beside all others*. The empty coalition's model is the initial one, the grand
coalition's the run's own result, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from truststram_lab.exceptions import ConflictError, InvalidInputError, nearest
from truststram_lab.explainability.shapley import shapley_weights
from truststram_lab.learning import encodings, weights
from truststram_lab.learning.strategies import aggregate, expected_update
from truststram_lab.learning.weights import State
from truststram_lab.schemas.contributions import (
    Contributions,
    ModelScore,
    SiteContribution,
    Worth,
)
from truststram_lab.schemas.federation import CreateRun, Run, RunRound, RunUpdate
from truststram_lab.schemas.strategies import Scaffold

__all__ = ["EXACT_SITES", "Game", "Round", "check_apart", "contributions", "game_of"]

#: Up to so many sites every coalition is counted: 1024 models.
EXACT_SITES = 10

#: Arrays of float64, one number a measure: accuracy, and minus the loss.
Value = Callable[[frozenset[int]], np.ndarray]

_MEASURES = ("accuracy", "loss")


@dataclass(frozen=True)
class Round:
    """A training round: each member's place in ``Game.sites``, its update and its weight.

    ``participation`` is the share of all that the round had (SCAFFOLD).
    """

    members: tuple[int, ...]
    updates: tuple[State, ...]
    weights: tuple[float, ...]
    participation: float


class Game:
    """The sites of a run, and what any set of them is worth.

    Args:
        score: a model's weights -> its score.
    """

    def __init__(
        self,
        plan: CreateRun,
        sites: list[str],
        rounds: Sequence[Round],
        start: State,
        score: Callable[[State], ModelScore],
    ) -> None:
        self.plan = plan
        self.sites = sites
        self.rounds = rounds
        self._start = start
        self._score = score
        self._known: dict[frozenset[int], ModelScore] = {}

    @property
    def evaluations(self) -> int:
        """Models that were built and scored."""
        return len(self._known)

    @property
    def everybody(self) -> frozenset[int]:
        return frozenset(range(len(self.sites)))

    def rounds_of(self, site: int) -> int:
        """In how many training rounds the site sent an update."""
        return sum(site in each.members for each in self.rounds)

    def least_members(self) -> int:
        """The smallest coalition, other than the empty one, that the strategy can aggregate."""
        return self.plan.strategy.least_updates

    def without(self, names: Sequence[str]) -> frozenset[int]:
        """All sites but these.

        Raises:
            InvalidInputError: a name is no site's, or nobody, or too few, would be left.
        """
        for name in names:
            if name not in self.sites:
                near = nearest(name, self.sites, most=1)
                raise InvalidInputError(
                    f"{name!r} is no site of this run; "
                    + (f"did you mean {near[0]!r}?" if near else f"they are {self.sites}."),
                    field="drop",
                    choices=self.sites,
                )
        left = self.everybody - {self.sites.index(name) for name in names}
        if not self.is_defined(left) or not left:
            raise InvalidInputError(
                f"Without {', '.join(names)} too few of the {len(self.sites)} sites are left for "
                f"{self.plan.strategy}; drop fewer.",
                field="drop",
            )
        return left

    def is_defined(self, coalition: frozenset[int]) -> bool:
        """Whether the strategy can aggregate the coalition in each round that has any of it."""
        least = self.least_members()
        if least <= 1:
            return True
        present = (len(coalition.intersection(each.members)) for each in self.rounds)
        return all(count == 0 or count >= least for count in present)

    def model(self, coalition: frozenset[int]) -> State:
        """The weights that the coalition's updates alone make of the initial ones."""
        state, memory = self._start, None
        for each in self.rounds:
            chosen = [place for place, one in enumerate(each.members) if one in coalition]
            if not chosen:
                continue  # nobody sent anything: the model stays
            made = aggregate(
                self.plan.strategy,
                state,
                [each.updates[place] for place in chosen],
                [each.weights[place] for place in chosen],
                memory,
                participation=each.participation * len(chosen) / len(each.members),
            )
            state, memory = made.state, made.server_state
            if isinstance(self.plan.strategy, Scaffold):
                state = _without_controls(state)
        return state

    def score(self, coalition: frozenset[int]) -> ModelScore:
        """The coalition's score; each is computed once."""
        found = self._known.get(coalition)
        if found is None:
            found = self._known[coalition] = self._score(self.model(coalition))
        return found

    def value(self, coalition: frozenset[int]) -> np.ndarray:
        """Accuracy, and minus the loss: of both, more is better."""
        found = self.score(coalition)
        return np.array([found.accuracy, -found.loss])


def game_of(
    run: Run,
    rounds: Sequence[RunRound],
    updates: Sequence[RunUpdate],
    fetch: Callable[[str], bytes],
    score: Callable[[State], ModelScore],
) -> Game:
    """The game of a run, with its stored updates in memory.

    Args:
        rounds, updates: as the platform lists them.
        fetch: gives a stored file by its digest, checked.

    Raises:
        ConflictError: no training round is closed yet.
    """
    plan = run.plan
    closed = [each for each in rounds if each.kind == "training" and each.result_sha256]
    if not closed or closed[0].model_sha256 is None:
        raise ConflictError(
            f"No training round of {run.name} is closed yet; wait for the first one."
        )
    start = weights.decode(fetch(closed[0].model_sha256))[0]
    if isinstance(plan.strategy, Scaffold):
        start = _without_controls(start)
    like = expected_update(plan.strategy, start)
    # Of an open roster the plan names nobody.
    sites = list(dict.fromkeys([*plan.sites, *(str(one.site) for one in updates)]))
    rows = [_round(each, sites, updates, like, fetch) for each in closed]
    return Game(plan, sites, rows, start, score)


def check_apart(run: Run, updates: Sequence[RunUpdate]) -> None:
    """Whether the run can be taken apart.

    Raises:
        ConflictError: it cannot; the sentence says why.
    """
    if run.plan.privacy is not None or any(one.site is None for one in updates):
        raise ConflictError(
            f"Run {run.name} promised differential privacy, and a model without one of its sites "
            "would be one more release of that site's data, which no budget has paid for; look at "
            "contributions in a run without --dp."
        )
    if run.plan.hosted is not None or len({one.site for one in updates}) < 2:
        raise ConflictError(
            f"The platform keeps no updates of single sites of {run.name}, so it cannot be taken "
            "apart; use a run of 2 to 20 sites, or leave a client of simulate() out and train "
            "again."
        )


def _round(
    each: RunRound,
    sites: Sequence[str],
    updates: Sequence[RunUpdate],
    like: Mapping[str, np.ndarray],
    fetch: Callable[[str], bytes],
) -> Round:
    sent = [one for one in updates if one.kind == "training" and one.round == each.number]
    # The sum goes through the sites in the plan's order; two may have sent the same bytes.
    sent.sort(key=lambda one: sites.index(str(one.site)))
    members: list[int] = []
    for sha256 in each.updates:
        one = next(one for one in sent if one.sha256 == sha256)
        sent.remove(one)
        members.append(sites.index(str(one.site)))
    return Round(
        tuple(members),
        tuple(encodings.decode(fetch(sha256), like)[0] for sha256 in each.updates),
        tuple(float(weight) for weight in each.weights),
        each.participation,
    )


def _without_controls(state: Mapping[str, np.ndarray]) -> State:
    return {name: array for name, array in state.items() if not name.startswith("c/")}


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
