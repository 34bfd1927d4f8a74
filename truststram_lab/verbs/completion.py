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
    """Names of ``models``, ``runs`` or ``datasets``; empty when nobody is signed in."""
    if kind == "datasets":
        return list(DEMO_NAMES)
    session = sessions.current()
    if session is None:
        return []
    now = time.monotonic()
    then, names = _remembered.get(kind, (float("-inf"), []))
    if now - then > _KEEP_S:
        try:
            page = session.client.models if kind == "models" else session.client.runs
            names = [item.name for item in page.list().items]
        except TrustStramException:
            # Completion runs at every keystroke: an error here would only be in the way,
            # and the command itself will say what is wrong.
            names = []
        _remembered[kind] = now, names
    return names
