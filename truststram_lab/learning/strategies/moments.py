"""Server optimizers: what the platform does with the mean update, with a memory of its own.

The memory ("server state") is plain named arrays: ``m/NAME`` and ``v/NAME`` for each weight.
It is kept in the weight's type (at least float32) and rounded every round, so a run that
goes on from a stored state takes the same steps to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ...exceptions import InvalidInputError
from ...schemas.strategies import FedAdam, FedAvgM, FedYogi
from ..weights import State
from .blocks import is_count, kept_type, spans

__all__ = ["adaptive_step", "momentum_step", "read_memory"]

_Rule = Callable[[np.ndarray, list[np.ndarray]], tuple[np.ndarray, list[np.ndarray]]]


def momentum_step(
    strategy: FedAvgM, mean: State, memory: Mapping[str, np.ndarray]
) -> tuple[State, State]:
    """FedAvgM: m = momentum m + mean; the step is server_learning_rate m.

    Args:
        mean: the weighted mean of the updates; given away, the step takes its place.
        memory: ``m/NAME`` arrays, empty before the first round (m starts at 0).

    Returns:
        The step to add to the global model, and the memory for the next round.

    Raises:
        InvalidInputError: the memory is of another model or strategy.

    Hsu, Qi and Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for
    Federated Visual Classification", section 4.2 (with server rate 1, without Nesterov's
    look ahead). https://arxiv.org/abs/1909.06335
    """

    def rule(delta: np.ndarray, former: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        moment = strategy.momentum * former[0] + delta
        return strategy.server_learning_rate * moment, [moment]

    return _step(rule, mean, read_memory(mean, memory, {"m": 0.0}), ("m",))


def adaptive_step(
    strategy: FedAdam | FedYogi, mean: State, memory: Mapping[str, np.ndarray]
) -> tuple[State, State]:
    """FedAdam and FedYogi, without bias correction.

    With d the mean of the updates, coordinate by coordinate::

        m = beta1 m + (1 - beta1) d
        v = beta2 v + (1 - beta2) d^2                   FedAdam
        v = v - (1 - beta2) d^2 sign(v - d^2)           FedYogi
        step = server_learning_rate m / (sqrt(v) + tau)

    m starts at 0 and v at tau^2, the smallest start that the paper allows.

    Args:
        mean: the weighted mean of the updates; given away, the step takes its place.
        memory: ``m/NAME`` and ``v/NAME`` arrays, empty before the first round.

    Returns:
        The step to add to the global model, and the memory for the next round.

    Raises:
        InvalidInputError: the memory is of another model or strategy.

    Reddi et al. 2021, "Adaptive Federated Optimization", algorithm 2.
    https://arxiv.org/abs/2003.00295
    """
    beta1, beta2 = strategy.beta1, strategy.beta2
    yogi = isinstance(strategy, FedYogi)

    def rule(delta: np.ndarray, former: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        first = beta1 * former[0] + (1.0 - beta1) * delta
        square = delta * delta
        if yogi:
            second = former[1] - (1.0 - beta2) * square * np.sign(former[1] - square)
        else:
            second = beta2 * former[1] + (1.0 - beta2) * square
        step = strategy.server_learning_rate * first / (np.sqrt(second) + strategy.tau)
        return step, [first, second]

    start = {"m": 0.0, "v": strategy.tau**2}
    return _step(rule, mean, read_memory(mean, memory, start), ("m", "v"))


def read_memory(
    model: Mapping[str, np.ndarray], memory: Mapping[str, np.ndarray], start: Mapping[str, float]
) -> Mapping[str, np.ndarray]:
    """The server state as a round needs it: checked, or the one before the first round.

    Args:
        model: arrays like those of the global model.
        memory: the state that the former round returned; empty before the first.
        start: prefix -> the value of every number before the first round.

    Raises:
        InvalidInputError: names, shapes or types are not those of this model and strategy.
    """
    expected = {
        f"{prefix}/{name}": np.broadcast_to(np.array(value, kept_type(array.dtype)), array.shape)
        for prefix, value in start.items()
        for name, array in model.items()
        if not is_count(array)
    }
    if not memory:
        return expected
    for name in (*expected, *memory):
        wanted, found = expected.get(name), memory.get(name)
        if wanted is None or found is None:
            fact = "has" if wanted is None else "lacks"
            raise _other_memory(f"{fact} array {name!r}")
        if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            raise _other_memory(
                f"has array {name!r} of {found.dtype} {found.shape} for {wanted.dtype} "
                f"{wanted.shape}"
            )
    return memory


def _other_memory(fact: str) -> InvalidInputError:
    return InvalidInputError(
        f"The server state {fact}, so it is of another model or strategy; go on with the state "
        "of this run's former round.",
        field="server_state",
    )


def _step(
    rule: _Rule, mean: State, memory: Mapping[str, np.ndarray], prefixes: tuple[str, ...]
) -> tuple[State, State]:
    kept: State = {}
    for name, array in mean.items():
        if is_count(array):
            continue
        flat = array.reshape(-1)
        names = [f"{prefix}/{name}" for prefix in prefixes]
        former = [memory[key].reshape(-1) for key in names]
        new = [np.empty(flat.size, memory[key].dtype) for key in names]
        for part in spans(flat.size):
            delta = flat[part].astype(np.float64)
            step, moments = rule(delta, [old[part].astype(np.float64) for old in former])
            flat[part] = step
            for out, moment in zip(new, moments, strict=True):
                out[part] = moment
        kept.update({key: out.reshape(array.shape) for key, out in zip(names, new, strict=True)})
    return mean, kept
