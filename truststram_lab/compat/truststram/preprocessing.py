"""``from truststram.preprocessing import DataProcessor``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truststram_lab.preprocessing import DataProcessor

__all__ = ["DataProcessor"]


def __getattr__(name: str) -> Any:
    # On use: the package's import stays light.
    if name in __all__:
        import truststram_lab.preprocessing

        return getattr(truststram_lab.preprocessing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
