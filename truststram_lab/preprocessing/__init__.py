"""Tables into what a network takes: signatures, row checks, encoding, demo data sets.

Names are loaded on first use: row checks and the encoder run in the platform's workers,
which have no pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .demo import DEMO_NAMES, DemoData, load_demo
    from .encoder import TableEncoder, encoded_width
    from .inference import fingerprint, infer_signature, target_codes
    from .processor import ClassCodes, DataProcessor, ProcessedArray
    from .rows import validate_row

__all__ = [
    "DEMO_NAMES",
    "ClassCodes",
    "DataProcessor",
    "DemoData",
    "ProcessedArray",
    "TableEncoder",
    "encoded_width",
    "fingerprint",
    "infer_signature",
    "load_demo",
    "target_codes",
    "validate_row",
]

_HOMES = {
    "DEMO_NAMES": "demo",
    "ClassCodes": "processor",
    "DataProcessor": "processor",
    "DemoData": "demo",
    "ProcessedArray": "processor",
    "TableEncoder": "encoder",
    "encoded_width": "encoder",
    "fingerprint": "inference",
    "infer_signature": "inference",
    "load_demo": "demo",
    "target_codes": "inference",
    "validate_row": "rows",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
