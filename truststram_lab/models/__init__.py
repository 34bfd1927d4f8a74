"""Models of tables that anybody can train: scikit-learn's, with the transform they need.

Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .algorithms import ALGORITHMS
    from .ml_model import MLModel

__all__ = ["ALGORITHMS", "MLModel"]

_HOMES = {"ALGORITHMS": "algorithms", "MLModel": "ml_model"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
