"""The models of the organisation, and the aliases of their versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.schemas.references import Reference

from . import session as sessions
from .choices import confirmed, not_an_action
from .results import ModelDetail, ModelList, Notice
from .watching import watched

if TYPE_CHECKING:
    from truststram_lab.client import TrustStramClient

__all__ = ["MODEL_ACTIONS", "models"]

MODEL_ACTIONS = ("alias", "unalias", "watch", "delete")


def models(
    name: str | None = None,
    action: str | None = None,
    alias: str | None = None,
    *,
    version: int | str | None = None,
    yes: bool = False,
) -> ModelList | ModelDetail | Notice:
    """All models, newest first; with a name, one model and its versions; with an action, act.

    Args:
        name: ``name``; ``name:version`` or ``name@alias`` show what that version takes in.
        action: ``alias`` lets ``name@alias`` mean a version from now on, ``unalias`` takes the
            alias away. What is deployed stays as it is. ``watch`` follows the model, its versions
            and aliases until Stop, or Kernel > Interrupt. ``delete`` removes it with all its
            versions, unless it is deployed.
        alias: such as ``champion``.
        version: for ``alias``: its number or label, ``latest`` or ``deployed``; the one that
            ``name`` names, or else the latest, when left out.
        yes: really delete.

    Raises:
        ModelNotFoundError: nothing has that name; the nearest names are in the sentence.
        InvalidInputError: the words do not go together, or that cannot be an alias.
    """
    client = sessions.require("looking at models").client
    if name is None:
        return ModelList(client.models.list().items)
    if action is not None and action not in MODEL_ACTIONS:
        raise not_an_action(action, MODEL_ACTIONS, "a model")
    if action == "delete":
        confirmed(yes, f"This removes {name} with all its versions", f"%ts_models {name} delete")
        client.models.delete(name)
        return Notice(f"{name} is deleted, with its versions; the name is free.")
    if action == "watch":
        return watched(client, lambda: _looked(client, name))
    if action is not None and alias is None:
        raise InvalidInputError(
            f"Which alias of {name}? Write it after the action: %ts_models {name} {action} "
            "champion.",
            field="alias",
        )
    if version is not None and action != "alias":
        raise InvalidInputError(
            f"A version goes with the action alias; {name}:{version} shows that version.",
            field="version",
        )
    said = ""
    if action == "alias":
        model = client.models.set_alias(name, str(alias), version)
        named = next(entry for entry in model.aliases if entry.alias == alias)
        said = f"{model.name}@{alias} means version {named.version} now."
    elif action == "unalias":
        model = client.models.delete_alias(name, str(alias))
        said = f"{model.name} has no alias {alias} any more; its versions stay."
    else:
        return _looked(client, name)
    return ModelDetail(model, client.models.versions(model).items, said=said)


def _looked(client: TrustStramClient, name: str) -> ModelDetail:
    model = client.models.get(name)
    chosen = client.models.version(name) if Reference.parse(name).is_exact else None
    return ModelDetail(model, client.models.versions(model).items, chosen=chosen)
