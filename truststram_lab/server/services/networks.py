"""Whether weights, a network and what it takes in fit together."""

from __future__ import annotations

from typing import Any

from truststram_lab.exceptions import InvalidInputError, TrustStramException, UpdateRejectedError
from truststram_lab.schemas.registry import Architecture
from truststram_lab.schemas.tables import Signature

__all__ = ["check_architecture", "check_weights"]


def check_architecture(architecture: Architecture, signature: Signature) -> None:
    """Refuse a network whose outputs are not one log-odds, or one logit a class."""
    if signature.task == "regression":
        raise InvalidInputError(
            "The platform's networks tell classes, and this signature is of a regression; train "
            "an MLModel, or name the classes.",
            field="signature.task",
        )
    widths = [layer.units for layer in architecture.layers if layer.type == "dense"]
    expected = 1 if signature.positive_class is not None else len(signature.classes)
    if not widths or widths[-1] != expected or architecture.layers[-1].type != "dense":
        raise InvalidInputError(
            f"The last layer must be dense with {expected} output{'s' * (expected != 1)} for the "
            f"{len(signature.classes)} classes; it has {widths[-1] if widths else 0}.",
            field="architecture",
        )


def check_weights(content: bytes, architecture: Architecture, field: str) -> dict[str, Any]:
    """The arrays of a safetensors file that fits ``architecture``, or InvalidInputError."""
    # numpy is loaded on first use: the platform listens before that
    import numpy as np

    from truststram_lab.learning import weights
    from truststram_lab.learning.network import expected_shapes

    try:
        state, _ = weights.decode(content)
        kinds = {array.dtype for array in state.values()}
        if len(kinds) != 1 or next(iter(kinds)) not in (np.float32, np.float64):
            raise UpdateRejectedError("All arrays must be float32, or all float64.")
        dtype = next(iter(kinds))
        like = {
            name: np.broadcast_to(np.zeros((), dtype), shape)
            for name, shape in expected_shapes(architecture).items()
        }
        weights.check_update(state, like)
    except TrustStramException as error:
        raise InvalidInputError(
            f"The weights do not fit the architecture: {error.message}", field=field
        ) from error
    return state
