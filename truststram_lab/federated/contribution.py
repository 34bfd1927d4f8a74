"""What each site brought: a game over the sites, played with a run's stored updates.

The value of a coalition is the score of the model that its members' updates alone make: the
run's aggregation is done again, round by round from the initial weights, over the stored updates
of the coalition, with their weights and the strategy's own memory. This is the one-round
reconstruction of Song, Tong & Wei 2019, "Profit Allocation for Federated Learning", section IV
(https://doi.org/10.1109/BigData47090.2019.9006327): nobody trains again, so an update is what
its site sent *beside all others*. The empty coalition's model is the initial one, the grand
coalition's the run's own result, bit for bit.

Updates that a site noised itself (the filter ``gaussian_noise``) are what it released: what is
computed of them is post-processing, and costs no more. A run that promised an epsilon is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from truststram_lab.exceptions import ConflictError, InvalidInputError, nearest
from truststram_lab.learning import encodings, weights
from truststram_lab.learning.strategies import aggregate, expected_update
from truststram_lab.learning.weights import State
from truststram_lab.schemas.contributions import ModelScore
from truststram_lab.schemas.federation import CreateRun, Run, RunRound, RunUpdate
from truststram_lab.schemas.strategies import Scaffold

__all__ = ["Game", "Round", "check_apart", "game_of"]


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
