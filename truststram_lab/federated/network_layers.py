"""The layers of a network as the documents write them, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from truststram_lab.exceptions import InvalidInputError, nearest
from truststram_lab.schemas.registry import DenseLayer, DropoutLayer

__all__ = ["read_layers"]

_ACTIVATIONS = ("relu", "tanh", "sigmoid", "identity")
_SAME = {"linear": "identity", "none": "identity"}
_KINDS = ("dense", "dropout")


def read_layers(
    layers: Sequence[Mapping[str, Any]],
) -> tuple[list[DenseLayer | DropoutLayer], bool]:
    """The layers, the last with its activation folded into the loss; whether it has two classes."""
    found = [
        _read_layer(layer, place, last=place == len(layers) - 1)
        for place, layer in enumerate(layers)
    ]
    last = layers[-1] if found else {}
    activation = str(last.get("activation", "linear"))
    units = last.get("units")
    good = {"sigmoid"} if units == 1 else {"softmax", "linear", "identity"}
    if not found or not isinstance(found[-1], DenseLayer) or activation not in good:
        raise InvalidInputError(
            "The last layer must be dense with 1 unit and activation sigmoid, or with one unit a "
            f"class and activation softmax or linear; this one is {dict(last)!r:.80}.",
            field="layers",
        )
    found[-1] = DenseLayer(units=found[-1].units)
    return found, units == 1


def _read_layer(layer: Mapping[str, Any], place: int, *, last: bool) -> DenseLayer | DropoutLayer:
    where = f"layers[{place}]"
    if not isinstance(layer, Mapping) or layer.get("type") not in _KINDS:
        kind = layer.get("type") if isinstance(layer, Mapping) else type(layer).__name__
        close = nearest(str(kind), _KINDS, most=1)
        hint = f"did you mean {close[0]!r}?" if close else "it is dense or dropout."
        raise InvalidInputError(f"{where} has type {kind!r}; {hint}", field=where, choices=close)
    shape = DenseLayer if layer["type"] == "dense" else DropoutLayer
    unknown = [key for key in layer if key not in shape.model_fields]
    if unknown:
        raise InvalidInputError(
            f"{where} has no {unknown[0]!r}; a {layer['type']} layer has "
            f"{', '.join(key for key in shape.model_fields if key != 'type')}.",
            field=where,
        )
    given = dict(layer)
    if "activation" in given:
        given["activation"] = _SAME.get(given["activation"], given["activation"])
        if last and given["activation"] == "softmax":
            given["activation"] = "identity"  # the loss has it
        if given["activation"] not in _ACTIVATIONS:
            known = [*_ACTIVATIONS, "linear", *(["softmax"] if last else [])]
            close = nearest(str(given["activation"]), known, most=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it is one of {', '.join(known)}."
            raise InvalidInputError(
                f"{where} has activation {given['activation']!r}; {hint}", field=where
            )
    try:
        return shape.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InvalidInputError(
            f"{where} has {name} {first['input']!r:.40}: {first['msg'].lower()}.", field=where
        ) from error
