"""Names for completion: fast, remembered for two seconds, and never an error."""

from __future__ import annotations

import time

from truststram_lab.exceptions import TrustStramException
from truststram_lab.preprocessing.demo import DEMO_NAMES

from . import session as sessions

__all__ = ["completion_names"]

_KEEP_S = 2.0
_remembered: dict[str, tuple[float, list[str]]] = {}


def completion_names(kind: str) -> list[str]:
    """Names of ``models``, ``aliases`` (``name@alias``), ``runs``, ``federations``, ``sites``
    (``federation/site``) or ``datasets``.

    Empty when nobody is signed in.
    """
    if kind == "datasets":
        return list(DEMO_NAMES)
    session = sessions.current()
    if session is None:
        return []
    now = time.monotonic()
    then, names = _remembered.get(kind, (float("-inf"), []))
    if now - then > _KEEP_S:
        try:
            names = _asked(session, kind)
        except TrustStramException:
            # Completion runs at every keystroke: an error here would only be in the way,
            # and the command itself will say what is wrong.
            names = []
        _remembered[kind] = now, names
    return names


def _asked(session: sessions.Session, kind: str) -> list[str]:
    if kind == "runs":
        return [run.name for run in session.client.runs.list().items]
    if kind in ("federations", "sites"):
        federations = session.client.federations.list().items
        if kind == "federations":
            return [federation.name for federation in federations]
        return [f"{each.name}/{site}" for each in federations for site in each.participants]
    models = session.client.models.list().items
    if kind == "models":
        return [model.name for model in models]
    return [
        f"{model.name}@{alias}"
        for model in models
        if model.latest_version is not None
        for alias in [*(entry.alias for entry in model.aliases), "latest"]
    ]
