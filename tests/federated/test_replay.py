"""A round computed again from its files: the same digest, or which array differs by how much."""

from __future__ import annotations

import numpy as np
import pytest

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.federated.replay import replay_rounds
from truststram_lab.learning import encodings, weights
from truststram_lab.learning.strategies import aggregate, expected_update
from truststram_lab.schemas.federation import CreateRun, RunRound
from truststram_lab.schemas.strategies import STRATEGY_NAMES, as_strategy

SITES = 7


class Platform:
    """Rounds as a platform makes and lists them, in memory."""

    def __init__(self, strategy: str, rounds: int = 3) -> None:
        self.files: dict[str, bytes] = {}
        self.rounds: list[RunRound] = []
        self.plan = CreateRun(
            model="m", federation="m", sites=["a"], rounds=rounds, strategy=as_strategy(strategy)
        )
        rng = np.random.default_rng(0)
        state = {"w": rng.normal(size=(4, 3)).astype(np.float32), "b": np.zeros(3, np.float32)}
        memory: dict[str, np.ndarray] = {}
        former = None
        shares = [int(n) for n in rng.integers(5, 90, SITES)]
        for number in range(1, rounds + 1):
            like = expected_update(self.plan.strategy, state)
            bodies = [
                encodings.encode(
                    {n: rng.normal(size=a.shape).astype(a.dtype) for n, a in like.items()}
                ).body
                for _ in range(SITES)
            ]
            updates = [encodings.decode(body, like)[0] for body in bodies]
            made = aggregate(
                self.plan.strategy, state, updates, [float(n) for n in shares], memory or None
            )
            kept = self.put(weights.encode(made.server_state)) if made.server_state else None
            self.rounds.append(
                RunRound(
                    id=f"rnd_{number}",
                    number=number,
                    kind="training",
                    status="closed",
                    model_sha256=self.put(weights.encode({**state, **_shared(strategy, memory)})),
                    result_sha256=self.put(weights.encode(made.state)),
                    former_state_sha256=former,
                    server_state_sha256=kept,
                    updates=[self.put(body) for body in bodies],
                    weights=shares,
                    created_at="",
                )
            )
            state, memory, former = made.state, made.server_state, kept

    def put(self, body: bytes) -> str:
        self.files[weights.sha256_hex(body)] = body
        return weights.sha256_hex(body)


def _shared(strategy: str, memory: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return memory if strategy == "scaffold" else {}


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_every_strategys_rounds_come_out_equal_bit_for_bit(strategy):
    platform = Platform(strategy)
    found = list(replay_rounds(platform.plan, platform.rounds, platform.files.__getitem__))
    assert [each.number for each in found] == [1, 2, 3]
    assert all(each.equal and not each.differences for each in found)


def test_a_changed_result_is_found_with_its_array_and_by_how_much():
    platform = Platform("fedavg")
    second = platform.rounds[1]
    state, _ = weights.decode(platform.files[second.result_sha256])
    wrong = {name: array.copy() for name, array in state.items()}
    wrong["b"][1] += np.float32(0.25)
    platform.rounds[1] = second.model_copy(
        update={"result_sha256": platform.put(weights.encode(wrong))}
    )
    one, two, three = replay_rounds(platform.plan, platform.rounds, platform.files.__getitem__)
    assert one.equal
    assert three.equal
    (entry,) = two.differences
    assert (entry.name, entry.differing, entry.coordinates) == ("b", 1, 3)
    assert entry.largest == pytest.approx(0.25, rel=1e-5)


def test_another_order_of_the_sites_or_other_weights_are_found():
    platform = Platform("fedavg", rounds=1)
    (only,) = platform.rounds
    swapped = only.model_copy(update={"weights": only.weights[::-1]})
    (found,) = replay_rounds(platform.plan, [swapped], platform.files.__getitem__)
    assert not found.equal
    assert {entry.name for entry in found.differences} == {"w", "b"}


def test_a_noised_round_goes_on_from_its_stored_mean():
    platform = Platform("fedavg", rounds=1)
    (only,) = platform.rounds
    base, _ = weights.decode(platform.files[only.model_sha256])
    mean = {name: np.full_like(array, 0.5) for name, array in base.items()}
    result = aggregate(platform.plan.strategy, base, [mean], [1.0]).state
    noised = only.model_copy(
        update={
            "noised_sha256": platform.put(weights.encode(mean)),
            "result_sha256": platform.put(weights.encode(result)),
        }
    )
    (found,) = replay_rounds(platform.plan, [noised], platform.files.__getitem__)
    assert found.equal
    assert found.noised


def test_one_round_can_be_chosen_and_a_number_that_is_none_says_the_range():
    platform = Platform("fedavg")
    found = list(replay_rounds(platform.plan, platform.rounds, platform.files.__getitem__, only=2))
    assert [each.number for each in found] == [2]
    with pytest.raises(InvalidInputError, match="from 1 to 3"):
        list(replay_rounds(platform.plan, platform.rounds, platform.files.__getitem__, only=4))
    with pytest.raises(InvalidInputError, match="wait for the first one"):
        list(replay_rounds(platform.plan, [], platform.files.__getitem__))
