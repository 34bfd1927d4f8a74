"""The models of the organisation."""

from __future__ import annotations

from . import session as sessions
from .results import ModelDetail, ModelList

__all__ = ["models"]


def models(name: str | None = None) -> ModelList | ModelDetail:
    """All models, newest first; with a name, one model and its versions.

    Raises:
        ModelNotFoundError: nothing has that name; the nearest names are in the sentence.
    """
    client = sessions.require("looking at models").client
    if name is None:
        return ModelList(client.models.list().items)
    return ModelDetail(client.models.get(name), client.models.versions(name).items)
