"""The participants of a federation and the run that brings them together.

Names are loaded on first use: a session that only simulates needs no client, and the other way.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truststram_lab.learning.filters import apply_filters

    from .client import FederatedClient
    from .coordinator import FederatedLearningCoordinator
    from .fl_server import FederatedServer
    from .network_model import NetworkModel
    from .participation import ParticipationEvent
    from .participation.policy import SitePolicy
    from .personal import (
        DittoResult,
        FedPerResult,
        StateDelta,
        compute_state_dict_delta,
        train_ditto,
        train_fedper,
    )
    from .run import FederatedRun
    from .watch import WatchedRun

__all__ = [
    "DittoResult",
    "FedPerResult",
    "FederatedClient",
    "FederatedLearningCoordinator",
    "FederatedRun",
    "FederatedServer",
    "NetworkModel",
    "ParticipationEvent",
    "SitePolicy",
    "StateDelta",
    "WatchedRun",
    "apply_filters",
    "compute_state_dict_delta",
    "train_ditto",
    "train_fedper",
]

_HOMES = {
    "DittoResult": ".personal",
    "FedPerResult": ".personal",
    "FederatedClient": ".client",
    "FederatedLearningCoordinator": ".coordinator",
    "FederatedRun": ".run",
    "FederatedServer": ".fl_server",
    "NetworkModel": ".network_model",
    "ParticipationEvent": ".participation",
    "SitePolicy": ".participation.policy",
    "StateDelta": ".personal",
    "WatchedRun": ".watch",
    "apply_filters": "truststram_lab.learning.filters",
    "compute_state_dict_delta": ".personal",
    "train_ditto": ".personal",
    "train_fedper": ".personal",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
