"""The names of the TrustStram documents; all of it is ``truststram_lab``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truststram_lab.client import AsyncTrustStramClient, TrustStramClient
    from truststram_lab.client.utilities import (
        PredictionCache,
        retry_on_failure,
        truststram_session,
    )

__all__ = [
    "AsyncTrustStramClient",
    "PredictionCache",
    "TrustStramClient",
    "__version__",
    "retry_on_failure",
    "truststram_session",
]


def __getattr__(name: str) -> Any:
    # On use: the package's import stays light.
    if name in __all__:
        import truststram_lab

        return getattr(truststram_lab, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
