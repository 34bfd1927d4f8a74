"""SCAFFOLD: control variates that take the drift out of local training, on both sides.

The platform keeps c and each site its own c_i, named ``c/NAME`` for the weight NAME. A site
adds c - c_i to every gradient (``learning.terms`` does that for any training function) and
sends what its weights and its control variate changed by, in one upload.

Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
algorithm 1 with option II for the control variates. https://arxiv.org/abs/1910.06378
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ...exceptions import InvalidInputError
from ...schemas.strategies import Scaffold
from ..weights import State, check_update
from .blocks import is_count, kept_type, like, spans
from .moments import read_memory

__all__ = [
    "correction",
    "expected_upload",
    "new_control",
    "no_control",
    "scaffold_step",
    "upload",
]

_PREFIX = "c/"


def no_control(model: Mapping[str, np.ndarray]) -> State:
    """The control variate before the first round: zeros, of the platform and of a site."""
    return {
        _PREFIX + name: np.zeros(array.shape, kept_type(array.dtype))
        for name, array in model.items()
        if not is_count(array)
    }


def correction(server: Mapping[str, np.ndarray], site: Mapping[str, np.ndarray]) -> State:
    """What a site adds to its gradients: c - c_i, by the names of the weights.

    Algorithm 1, line 10: y = y - rate (g(y) - c_i + c).

    Args:
        server: the platform's ``c/NAME``.
        site: the site's own ``c/NAME``.

    Raises:
        UpdateRejectedError: the two are not of the same model, or not finite.
    """
    check_update(site, server)
    return {name.removeprefix(_PREFIX): server[name] - site[name] for name in server}


def new_control(
    server: Mapping[str, np.ndarray],
    site: Mapping[str, np.ndarray],
    start: Mapping[str, np.ndarray],
    trained: Mapping[str, np.ndarray],
    path: float,
) -> State:
    """The site's control variate after local training: c_i - c + (x - y) / path.

    That is the mean of the gradients on the way from x to y. It holds for plain SGD;
    with momentum m the last term is too large by about 1 / (1 - m), and an adaptive
    optimizer's step says nothing of the gradient's size.

    Args:
        server: the platform's ``c/NAME`` of this round.
        site: the site's own ``c/NAME`` before this round.
        start: x, the global model that training started from.
        trained: y, the weights after it.
        path: K times the learning rate: the learning rates of all steps, summed.

    Raises:
        InvalidInputError: ``path`` is not positive.
        UpdateRejectedError: the controls or the weights are not of the same model.

    Algorithm 1, line 12, option II.
    """
    if not (math.isfinite(path) and path > 0):
        raise InvalidInputError(
            f"The learning rates of the local steps sum to {path}, but a control variate needs a "
            "positive sum; take one step or more.",
            field="path",
        )
    check_update(site, server)
    check_update(trained, like(start))
    found: State = {}
    for key, own in site.items():
        name = key.removeprefix(_PREFIX)
        drift = np.subtract(start[name], trained[name], dtype=np.float64) / path
        found[key] = (own.astype(np.float64) - server[key] + drift).astype(own.dtype)
    return found


def upload(
    delta: Mapping[str, np.ndarray],
    former: Mapping[str, np.ndarray],
    new: Mapping[str, np.ndarray],
) -> State:
    """One update of both: what the weights and the site's control variate changed by.

    Args:
        delta: y - x, by the names of the weights.
        former: the site's ``c/NAME`` before this round.
        new: the site's ``c/NAME`` after it; to be kept by the site for its next round.

    Algorithm 1, line 13.
    """
    check_update(new, former)
    return {**delta, **{name: new[name] - former[name] for name in former}}


def expected_upload(model: Mapping[str, np.ndarray]) -> State:
    """Names, shapes and types of an upload: the model's, and one ``c/NAME`` for each weight."""
    controls = {
        _PREFIX + name: np.broadcast_to(np.zeros((), kept_type(array.dtype)), array.shape)
        for name, array in model.items()
        if not is_count(array)
    }
    return {**like(model), **controls}


def scaffold_step(
    strategy: Scaffold, mean: State, memory: Mapping[str, np.ndarray], participation: float
) -> tuple[State, State]:
    """The platform's side: x + server_learning_rate mean(dy), c + participation mean(dc).

    Args:
        mean: the mean of the uploads; given away, the step takes its place.
        memory: the platform's ``c/NAME``, empty before the first round.
        participation: |S| / N, the share of all sites that sent an update; where sites weigh
            by their rows, their share of all rows. Then c stays the mean of all c_i.

    Returns:
        The step to add to the global model, and the new c.

    Raises:
        InvalidInputError: ``participation`` is not in (0, 1], or the memory is of another model.

    Algorithm 1, lines 16 and 17.
    """
    if not 0 < participation <= 1:
        raise InvalidInputError(
            f"The share of sites that took part is {participation:g}, but is more than 0 and at "
            "most 1; divide the sites of this round by all sites.",
            field="participation",
        )
    changes = {name: mean.pop(name) for name in list(mean) if name.startswith(_PREFIX)}
    former = read_memory(mean, memory, {"c": 0.0})
    kept: State = {}
    for name, change in changes.items():
        flat, old = change.reshape(-1), former[name].reshape(-1)
        for part in spans(flat.size):
            total = old[part].astype(np.float64) + participation * flat[part].astype(np.float64)
            flat[part] = total
        kept[name] = change
    for array in mean.values():
        if not is_count(array) and strategy.server_learning_rate != 1.0:
            array *= strategy.server_learning_rate
    return mean, kept
