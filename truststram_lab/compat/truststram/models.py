"""``from truststram.models import MLModel``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truststram_lab.models import MLModel

__all__ = ["MLModel"]


def __getattr__(name: str) -> Any:
    # On use: the package's import stays light.
    if name in __all__:
        import truststram_lab.models

        return getattr(truststram_lab.models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
