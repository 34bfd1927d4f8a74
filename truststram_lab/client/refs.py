"""How things are named in a path."""

from __future__ import annotations

from urllib.parse import quote

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.schemas.references import Reference
from truststram_lab.schemas.registry import Model, ModelVersion
from truststram_lab.schemas.serving import Deployment

__all__ = ["ModelRef", "model_ref", "reference", "segment"]

#: "name", "name:version", "name@alias", an id, or the object itself
ModelRef = str | Model | ModelVersion | Deployment


def segment(value: str | int, what: str) -> str:
    """``value`` quoted as one segment of a path.

    Raises:
        InvalidInputError: empty, or a name that a path would not keep.
    """
    text = str(value)
    if text in ("", ".", ".."):
        raise InvalidInputError(f"{text!r} is not the name of {what}.", field=what)
    return quote(text, safe="")


def model_ref(model: ModelRef) -> str:
    """The name the platform knows the model by; a version keeps its number."""
    if isinstance(model, ModelVersion):
        return f"{model.model}:{model.sequence}"
    if isinstance(model, Model):
        return model.name
    return model.name if isinstance(model, Deployment) else model


def reference(model: ModelRef) -> Reference:
    """The same taken apart; raises InvalidInputError if a part of it is missing."""
    return Reference.parse(model_ref(model))
