"""Models of a site's own: pulled to the global one (Ditto), or sharing only some layers.

Pure functions on named arrays. What stays at the site never enters an update.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from ..exceptions import InvalidInputError, nearest
from .weights import State, delta

__all__ = [
    "DITTO_LAMBDA",
    "batch_norm_layers",
    "join",
    "layer_names",
    "proximal_penalty",
    "proximal_pull",
    "split_batch_norm",
    "split_head",
]

#: Ditto's lambda where none is given. 0 is a model of the site alone; the larger it is, the
#: nearer the personal model stays to the global one.
DITTO_LAMBDA = 0.1

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def proximal_pull(
    weights: Mapping[str, np.ndarray], anchor: Mapping[str, np.ndarray], strength: float
) -> State:
    """What a proximal term adds to the gradient: ``strength * (weights - anchor)``.

    Ditto trains a personal model v at a site, beside the global model w, by
    ``v - rate * (grad F(v) + lambda * (v - w))``: ``proximal_pull(v, w, lambda)``. FedProx
    trains the global model with mu/2 |w - w0|^2 added to the loss, whose gradient is
    ``proximal_pull(w, w0, mu)``. Whole numbers are not pulled.

    Args:
        weights: where training is now.
        anchor: what it is pulled to, of the same names and shapes.
        strength: lambda or mu, 0 or more, per squared unit of the weights.

    Raises:
        InvalidInputError: ``strength`` is negative or not finite.
        UpdateRejectedError: the two do not have the same names and shapes.

    Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization",
    algorithm 1. https://arxiv.org/abs/2012.04221
    Li et al. 2020, "Federated Optimization in Heterogeneous Networks", equation 2.
    https://arxiv.org/abs/1812.06127
    """
    _check_strength(strength)
    return {
        name: (strength * away).astype(away.dtype)
        for name, away in delta(anchor, weights).items()
        if away.dtype.kind == "f"
    }


def proximal_penalty(
    weights: Mapping[str, np.ndarray], anchor: Mapping[str, np.ndarray], strength: float
) -> float:
    """What a proximal term adds to the loss: ``strength / 2 * |weights - anchor|^2``.

    Summed in float64 over all arrays but whole numbers. Arguments, errors and papers as in
    ``proximal_pull``, which is its gradient.
    """
    _check_strength(strength)
    squares = [
        float(np.sum(np.square(away.astype(np.float64))))
        for away in delta(anchor, weights).values()
        if away.dtype.kind == "f"
    ]
    return 0.5 * strength * math.fsum(squares)


def _check_strength(strength: float) -> None:
    if not (math.isfinite(strength) and strength >= 0):
        raise InvalidInputError(
            f"{strength:g} is no strength of a pull to the global model; take 0 or more, for "
            f"example {DITTO_LAMBDA:g}.",
            field="lambda_ditto",
        )


def layer_names(state: Mapping[str, np.ndarray]) -> list[str]:
    """The layers that own the arrays, in order: ``fc`` of ``fc.weight`` and ``fc.bias``."""
    return list(dict.fromkeys(_layer(name) for name in state))


def split_head(state: Mapping[str, np.ndarray], head_layers: Iterable[str]) -> tuple[State, State]:
    """FedPer: a model as the body that is shared, and the head that stays at the site.

    A name of ``head_layers`` takes the array of that name, and all below it: ``classifier``
    takes ``classifier.weight`` and ``classifier.0.bias``, but not ``classifier2.weight``.

    Args:
        state: the whole model.
        head_layers: names of layers, or of single arrays.

    Returns:
        Body and head, of the same arrays, in the model's order.

    Raises:
        InvalidInputError: a name matches nothing (the message lists the layers), no name was
            given, or nothing would be left to share.

    Arivazhagan et al. 2019, "Federated Learning with Personalization Layers", section 3.
    https://arxiv.org/abs/1912.00818
    """
    heads = [head_layers] if isinstance(head_layers, str) else list(head_layers)
    layers = [layer for layer in layer_names(state) if layer]
    if not heads:
        raise InvalidInputError(
            f"No head layer was named; the layers are {', '.join(layers)}.", field="head_layers"
        )
    for head in heads:
        if not any(_within(name, head) for name in state):
            close = nearest(head, [*layers, *state])
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise InvalidInputError(
                f"No layer is named {head!r}; {hint}The layers are {', '.join(layers)}.",
                field="head_layers",
                choices=close,
            )
    kept = {name for name in state if any(_within(name, head) for head in heads)}
    if len(kept) == len(state):
        raise InvalidInputError(
            f"The head {', '.join(heads)} is the whole model, so nothing would be shared; name "
            f"fewer of its layers: {', '.join(layers)}.",
            field="head_layers",
        )
    return _split(state, kept)


def batch_norm_layers(state: Mapping[str, np.ndarray]) -> list[str]:
    """The batch-norm layers of a model, known by their ``running_mean`` and ``running_var``.

    A layer made with ``track_running_stats=False`` has neither; nothing in its names tells
    it from another layer's.
    """
    return [
        layer
        for layer in layer_names(state)
        if all(_join_name(layer, part) in state for part in ("running_mean", "running_var"))
    ]


def split_batch_norm(state: Mapping[str, np.ndarray]) -> tuple[State, State]:
    """FedBN: a model as what is shared, and its batch norms, which stay at the site.

    All of a batch-norm layer stays: ``running_mean``, ``running_var``,
    ``num_batches_tracked``, and the affine ``weight`` and ``bias``.

    Returns:
        Shared and local arrays, in the model's order.

    Raises:
        InvalidInputError: the model has no batch norm, or nothing else.

    Li et al. 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch
    Normalization", section 3 and algorithm 1. https://arxiv.org/abs/2102.07623
    """
    norms = batch_norm_layers(state)
    if not norms:
        raise InvalidInputError(
            f"No layer of {', '.join(layer_names(state))} has a running mean and variance, so "
            "there is no batch norm to keep; share the whole model.",
            field="state",
        )
    parts = (*_STATISTICS, "weight", "bias")
    kept = {_join_name(layer, part) for layer in norms for part in parts} & set(state)
    if len(kept) == len(state):
        raise InvalidInputError(
            f"The model is nothing but the batch norms {', '.join(norms)}, so nothing would be "
            "shared; share the whole model.",
            field="state",
        )
    return _split(state, kept)


def join(
    like: Mapping[str, np.ndarray], shared: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray]
) -> State:
    """The model of its two parts again, in the order of ``like``.

    Args:
        like: the whole model that was split.
        shared: new values of the one part.
        own: new values of the other.

    Raises:
        InvalidInputError: an array is in both parts or in none, or belongs to no model.
    """
    for name in (*like, *shared, *own):
        owners = (name in shared) + (name in own)
        if owners != 1 or name not in like:
            fact = "in no part" if not owners else "in both parts"
            raise InvalidInputError(
                f"Array {name!r} is {fact if name in like else 'not in the model'}; join the two "
                "parts that one split gave.",
                field=name,
            )
    return {name: shared[name] if name in shared else own[name] for name in like}


def _split(state: Mapping[str, np.ndarray], kept: set[str]) -> tuple[State, State]:
    shared = {name: array for name, array in state.items() if name not in kept}
    return shared, {name: array for name, array in state.items() if name in kept}


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _join_name(layer: str, part: str) -> str:
    # A model that is one single layer has no name before the dot.
    return f"{layer}.{part}" if layer else part


def _within(name: str, head: str) -> bool:
    return name == head or name.startswith(head + ".")
