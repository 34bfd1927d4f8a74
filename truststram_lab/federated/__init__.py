"""The participants of a federation and the run that brings them together."""

from __future__ import annotations

from .run import FederatedRun
from .watch import WatchedRun

__all__ = ["FederatedRun", "WatchedRun"]
