"""Weights as their owner has them: a list of arrays, a dict of arrays, or a dict of tensors.

The rounds work on named numpy arrays. What a caller hands in decides what it gets back.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from truststram_lab.exceptions import InvalidInputError, UpdateRejectedError, nearest
from truststram_lab.learning.weights import State

__all__ = ["ARRAYS", "LIST", "TENSORS", "Form", "read_like", "take_weights"]

_Kind = Literal["list", "arrays", "tensors"]


@dataclass(frozen=True, eq=False)
class Form:
    """A kind of weights; ``give`` makes them. ``like`` has each tensor's own type and device."""

    kind: _Kind
    like: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def give(self, state: Mapping[str, np.ndarray]) -> Any:
        """``state`` in this kind, in memory of its own."""
        if self.kind == "list":
            return [np.array(array) for array in state.values()]
        if self.kind == "arrays":
            return {name: np.array(array) for name, array in state.items()}
        return {name: self._tensor(name, array) for name, array in state.items()}

    def _tensor(self, name: str, array: np.ndarray) -> Any:
        import torch

        tensor = torch.tensor(np.asarray(array))
        own = self.like.get(name)
        return tensor if own is None else tensor.to(dtype=own.dtype, device=own.device)


LIST = Form("list")
ARRAYS = Form("arrays")
TENSORS = Form("tensors")


def take_weights(weights: Any, what: str = "weights") -> tuple[State, Form]:
    """Weights of any kind as named arrays (copies), and the kind to give them back in.

    The arrays of a list are named ``array_0000`` and so on.

    Raises:
        InvalidInputError: no such kind, empty, or a value that is no array of numbers.
    """
    if isinstance(weights, Mapping):
        found = {str(name): _array(value, f"{what}[{name!r}]") for name, value in weights.items()}
        tensors = [name for name, value in weights.items() if _is_tensor(value)]
        form = Form("tensors", dict(weights)) if tensors else ARRAYS
    elif isinstance(weights, Sequence) and not isinstance(weights, str | bytes):
        found = {
            f"array_{place:04d}": _array(value, f"{what}[{place}]")
            for place, value in enumerate(weights)
        }
        form = LIST
    else:
        hint = "pass its state_dict()" if hasattr(weights, "state_dict") else "pass such weights"
        raise InvalidInputError(
            f"{what} is a {type(weights).__name__}, but weights are a list of arrays, or a dict of "
            f"arrays or torch tensors; {hint}.",
            field=what,
        )
    if not found:
        raise InvalidInputError(f"{what} is empty; it needs at least one array.", field=what)
    return {name: np.array(array) for name, array in found.items()}, form


def read_like(weights: Any, base: Mapping[str, np.ndarray], who: str) -> State:
    """Weights that ``who`` returned, as arrays of ``base``'s names, shapes and types.

    A list is read in the order of ``base``; floats of another width are rounded.

    Args:
        who: begins the sentences, such as ``the training function``.

    Raises:
        UpdateRejectedError: a name is missing or unknown, or an array has another shape, kind
            of numbers, or values that are not finite; one sentence names it.
    """
    named = _named(weights, base, who)
    for name in base:
        if name not in named:
            close = nearest(name, [key for key in named if key not in base], most=1)
            hint = f"it returned {close[0]!r} instead" if close else "it is missing"
            raise _refused(
                f"{_begin(who)} did not return array {name!r}: {hint}; return all of the round's "
                f"{len(base)} arrays under their names.",
                name,
            )
    for name in named:
        if name not in base:
            close = nearest(name, base, most=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(base)}."
            raise _refused(
                f"{_begin(who)} returned array {name!r}, which the round's model has not; {hint}",
                name,
            )
    return {name: _fitting(named[name], base[name], name, who) for name in base}


def _named(weights: Any, base: Mapping[str, np.ndarray], who: str) -> dict[str, Any]:
    if isinstance(weights, Mapping):
        return {str(name): value for name, value in weights.items()}
    if isinstance(weights, Sequence) and not isinstance(weights, str | bytes):
        if len(weights) != len(base):
            raise _refused(
                f"{_begin(who)} returned {len(weights)} arrays, expected {len(base)}; return one "
                "for each that it was given, in their order.",
            )
        return dict(zip(base, weights, strict=True))
    hint = "return its state_dict()" if hasattr(weights, "state_dict") else "return the weights"
    raise _refused(
        f"{_begin(who)} returned a {type(weights).__name__} as weights; {hint}, of the kind that "
        "it was given.",
    )


def _fitting(value: Any, like: np.ndarray, name: str, who: str) -> np.ndarray:
    try:
        array = _array(value, f"array {name!r}")
    except InvalidInputError as error:
        raise _refused(f"{_begin(who)} returned {error.message}", name) from error
    if array.shape != like.shape:
        raise _refused(
            f"{_begin(who)} returned array {name!r} with shape {array.shape}, expected "
            f"{like.shape}; train the round's own model.",
            name,
        )
    if like.dtype.kind == "f" and array.dtype.kind != "f":
        raise _refused(
            f"{_begin(who)} returned array {name!r} as {array.dtype}, expected {like.dtype}; "
            "return floats.",
            name,
        )
    if like.dtype.kind != "f" and array.dtype != like.dtype:
        raise _refused(
            f"{_begin(who)} returned array {name!r} as {array.dtype}, expected {like.dtype}; "
            "return it in the type that it was given in.",
            name,
        )
    with np.errstate(over="ignore"):
        fitted = array.astype(like.dtype)
    if fitted.dtype.kind == "f":
        bad = fitted.size - int(np.isfinite(fitted).sum())
        if bad:
            raise _refused(
                f"{_begin(who)} returned array {name!r} with {bad} values of {fitted.size} that "
                "are not finite; lower the learning rate, or look for a division by zero.",
                name,
            )
    return fitted


def _array(value: Any, where: str) -> np.ndarray:
    """The numbers of an array or tensor; no copy unless the type or the device asks for one."""
    if _is_tensor(value):
        plain = value.detach()
        if plain.layout is not sys.modules["torch"].strided:
            raise InvalidInputError(
                f"{where} as a sparse tensor; make it dense with to_dense().", field=where
            )
        plain = plain.cpu()
        # numpy has no bfloat16; float32 holds each of its values.
        if str(plain.dtype) == "torch.bfloat16":
            plain = plain.float()
        array: np.ndarray = plain.numpy()
    elif isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
    else:
        raise InvalidInputError(
            f"{where} as a {type(value).__name__}; make it a numpy array or a torch tensor.",
            field=where,
        )
    if array.dtype.kind not in "fiub":
        raise InvalidInputError(
            f"{where} as {array.dtype}; make it an array of float32 or float64.", field=where
        )
    return array


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _begin(who: str) -> str:
    return who[:1].upper() + who[1:]


def _refused(sentence: str, name: str | None = None) -> UpdateRejectedError:
    return UpdateRejectedError(sentence, field=name)
