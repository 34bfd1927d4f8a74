"""Weights between rounds: what training changed, and models that stay at their site."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning import weights
from truststram_lab.learning.personal import DITTO_LAMBDA, split_head
from truststram_lab.learning.terms import local_terms
from truststram_lab.learning.weights import State

from .participation.forms import Form, take_weights
from .participation.functions import Trained, adapt

__all__ = [
    "DittoResult",
    "FedPerResult",
    "StateDelta",
    "compute_state_dict_delta",
    "train_ditto",
    "train_fedper",
]

TrainFunction = Callable[..., Any]


class StateDelta(dict[str, Any]):
    """A delta; ``excluded`` names the whole-number buffers (counters) that it leaves out."""

    excluded: tuple[str, ...] = ()


class _Ditto(NamedTuple):
    global_state: Any
    personal_state: Any
    sample_count: int
    metrics: dict[str, float]


class _FedPer(NamedTuple):
    body_delta: Any
    head_state: Any
    sample_count: int
    metrics: dict[str, float]


class DittoResult(_Ditto):
    """Both trained states in the caller's kind: by attribute, by name in brackets, or unpacked.

    ``metrics`` are those of the global model; the personal model's have the prefix
    ``personal_``.
    """

    def __getitem__(self, key: Any) -> Any:
        return _pick(self, key)


class FedPerResult(_FedPer):
    """The change of the body, to be shared, and the trained head, which stays."""

    def __getitem__(self, key: Any) -> Any:
        return _pick(self, key)


def compute_state_dict_delta(base_state: Any, updated_state: Any) -> StateDelta | list[Any]:
    """What training changed: ``updated - base``, in the kind and types of ``base_state``.

    Buffers of whole numbers, such as batch norm's ``num_batches_tracked``, count and do not
    learn: they are left out, and named in the result's ``excluded``.

    Args:
        base_state: a dict of torch tensors or arrays, or a list of arrays.
        updated_state: the same names and shapes.

    Raises:
        InvalidInputError: no weights.
        UpdateRejectedError: a name is missing or unknown, or a shape differs.
    """
    base, form = take_weights(base_state, "base_state")
    updated, _ = take_weights(updated_state, "updated_state")
    if form.kind == "list" and len(base) != len(updated):
        raise InvalidInputError(
            f"updated_state has {len(updated)} arrays, but base_state has {len(base)}; pass the "
            "two states of one model.",
            field="updated_state",
        )
    change = weights.delta(base, updated)
    learned = {name: array for name, array in change.items() if array.dtype.kind == "f"}
    if form.kind == "list":
        given: list[Any] = form.give(learned)
        return given
    found = StateDelta(form.give(learned))
    found.excluded = tuple(name for name in change if name not in learned)
    return found


def train_ditto(
    global_model: Any,
    personal_model: Any,
    local_train_fn: TrainFunction,
    lambda_ditto: float = DITTO_LAMBDA,
) -> DittoResult:
    """Train the global model for the federation, and a personal one that stays near it.

    The function trains twice: the global model as it is, and the personal model with
    ``lambda_ditto * (personal - global)`` in the gradient of every optimizer step.

    Args:
        global_model: the round's weights, of any kind; also what the personal model is pulled to.
        personal_model: the personal weights, of the same names and shapes.
        local_train_fn: ``fn(state) -> (state, rows, metrics)``, called on this thread.
        lambda_ditto: 0 or more; 0 trains a model of this site alone.

    Raises:
        InvalidInputError: ``lambda_ditto`` is negative or not finite, or the function took no
            torch optimizer step, so that the pull could not come in.
        UpdateRejectedError: the two models differ in names or shapes, or the function returned
            something else than trained weights.

    Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization",
    algorithm 1. https://arxiv.org/abs/2012.04221
    """
    number = isinstance(lambda_ditto, numbers.Real) and not isinstance(lambda_ditto, bool)
    if not (number and math.isfinite(lambda_ditto) and lambda_ditto >= 0):
        raise InvalidInputError(
            f"lambda_ditto is {lambda_ditto!r:.60}, but must be a number from 0 up; "
            f"{DITTO_LAMBDA} is usual.",
            field="lambda_ditto",
        )
    shared, form = take_weights(global_model, "global_model")
    own, own_form = take_weights(personal_model, "personal_model")
    weights.delta(shared, own)  # the same names and shapes, or it says which are not
    trained = _train(local_train_fn, shared, form)
    if lambda_ditto:
        with local_terms(own, pull=lambda_ditto, anchor=shared):
            personal = _train(local_train_fn, own, own_form)
    else:
        personal = _train(local_train_fn, own, own_form)
    metrics = {
        **trained.metrics,
        **{f"personal_{name}": value for name, value in personal.metrics.items()},
    }
    return DittoResult(
        form.give(trained.state), own_form.give(personal.state), trained.samples, metrics
    )


def train_fedper(
    model: Any, head_layers: Iterable[str], local_train_fn: TrainFunction
) -> FedPerResult:
    """Train the whole model; the body's change is to be shared, the head stays.

    Args:
        model: the weights, a dict of torch tensors or arrays.
        head_layers: names of layers or arrays, matched at the dots: ``classifier`` takes
            ``classifier.weight`` and not ``classifier2.weight``.
        local_train_fn: ``fn(state) -> (state, rows, metrics)``.

    Raises:
        InvalidInputError: a head name matches nothing; the sentence lists the layers.

    Arivazhagan et al. 2019, "Federated Learning with Personalization Layers", section 3.
    https://arxiv.org/abs/1912.00818
    """
    base, form = take_weights(model, "model")
    heads = _names(head_layers)
    body, _ = split_head(base, heads)
    trained = _train(local_train_fn, base, form)
    new_body, new_head = split_head(trained.state, heads)
    change = _floats(weights.delta(body, new_body))
    return FedPerResult(form.give(change), form.give(new_head), trained.samples, trained.metrics)


def _names(head_layers: Any) -> list[str]:
    given = [head_layers] if isinstance(head_layers, str) else head_layers
    heads = list(given) if isinstance(given, Iterable) else [given]
    wrong = next((name for name in heads if not isinstance(name, str)), None)
    if wrong is not None or given is None:
        raise InvalidInputError(
            f"head_layers has {wrong!r:.60}, which is no name of a layer; name layers such as "
            "['classifier'].",
            field="head_layers",
        )
    return heads


def _train(function: TrainFunction, base: State, form: Form) -> Trained:
    return adapt(function, form)(base, {})


def _floats(state: Mapping[str, np.ndarray]) -> State:
    return {name: array for name, array in state.items() if array.dtype.kind == "f"}


def _pick(result: Any, key: Any) -> Any:
    if isinstance(key, str):
        if key not in result._fields:
            raise KeyError(f"{key!r}; there are {', '.join(result._fields)}")
        return getattr(result, key)
    return tuple.__getitem__(result, key)
