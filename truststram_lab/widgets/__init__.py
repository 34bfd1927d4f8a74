"""Live views of long things, and how results are shown; nothing heavy is loaded here."""

from __future__ import annotations

from .formatters import register_formatters, unregister_formatters
from .live import LiveView, TerminalView, view_of

__all__ = [
    "LiveView",
    "TerminalView",
    "register_formatters",
    "unregister_formatters",
    "view_of",
]
