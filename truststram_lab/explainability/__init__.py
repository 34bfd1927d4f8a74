"""Why a prediction came out as it did: pure numpy, exact where that is affordable.

``explain_rows`` speaks about the columns people know, never about encoded inputs.
"""

from __future__ import annotations

from .explain import EXACT_COLUMNS, background_of, explain_rows
from .interfaces import DenseLike, EncoderLike, NetworkLike

__all__ = [
    "EXACT_COLUMNS",
    "DenseLike",
    "EncoderLike",
    "NetworkLike",
    "background_of",
    "explain_rows",
]
