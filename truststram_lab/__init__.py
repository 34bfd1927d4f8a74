"""Trustworthy federated learning inside the notebook.

``%load_ext truststram_lab`` gives the magics; the same verbs are functions here::

    import truststram_lab as ts
    ts.login(sandbox=True)
    run = ts.federate("breast-cancer", clients=5, rounds=10)
    ts.predict("breast-cancer", example=True, explain=True)

Everything is loaded on first use: importing the package costs milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .client import AsyncTrustStramClient, TrustStramClient
    from .client.utilities import PredictionCache, retry_on_failure, truststram_session
    from .federated import FederatedRun
    from .verbs import federate, federations, join, login, logout, predict, simulate, where

_HOMES = {
    "AsyncTrustStramClient": "client",
    "FederatedRun": "federated",
    "PredictionCache": "client.utilities",
    "TrustStramClient": "client",
    "federate": "verbs",
    "federations": "verbs",
    "join": "verbs",
    "login": "verbs",
    "logout": "verbs",
    "predict": "verbs",
    "retry_on_failure": "client.utilities",
    "simulate": "verbs",
    "truststram_session": "client.utilities",
    "where": "verbs",
}

__all__ = [
    "AsyncTrustStramClient",
    "FederatedRun",
    "PredictionCache",
    "TrustStramClient",
    "__version__",
    "federate",
    "federations",
    "join",
    "load_ipython_extension",
    "login",
    "logout",
    "predict",
    "retry_on_failure",
    "simulate",
    "truststram_session",
    "unload_ipython_extension",
    "where",
]


def __getattr__(name: str) -> Any:
    room = _HOMES.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext truststram_lab``: register the magics and their completion."""
    import_module(f"{__name__}.magics").register(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext truststram_lab``: take the magics and their completion away again."""
    import_module(f"{__name__}.magics").unregister(shell)


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """Where Jupyter Server finds its part; nothing is loaded for saying so."""
    return [{"module": f"{__name__}._jupyter"}]
