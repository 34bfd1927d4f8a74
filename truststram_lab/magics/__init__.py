"""The magics: a line is parsed, and a plain verb is called. ``%ts`` says what there is."""

from __future__ import annotations

from typing import Any

from truststram_lab.widgets import register_formatters, unregister_formatters

from . import (  # declares the commands
    accounts,
    deployments,
    explaining,
    federation,
    participants,
    registry,
    serving,
)
from .command import COMMANDS
from .completion import MATCHER, matcher_for

__all__ = [
    "COMMANDS",
    "accounts",
    "deployments",
    "explaining",
    "federation",
    "participants",
    "register",
    "registry",
    "serving",
    "unregister",
]


def register(shell: Any) -> None:
    """Add magics, completion and cards to ``shell``; doing it again changes nothing."""
    unregister(shell)
    for command in COMMANDS.values():
        for kind, function in command.functions(shell).items():
            shell.register_magic_function(function, kind, command.name)
    shell.Completer.custom_matchers.append(matcher_for(shell))
    register_formatters(shell)
    participants.register_shown(shell)


def unregister(shell: Any) -> None:
    """Take them away again; fine when they are not there."""
    for kind in ("line", "cell"):
        for name in COMMANDS:
            shell.magics_manager.magics[kind].pop(name, None)
    matchers = shell.Completer.custom_matchers
    matchers[:] = [m for m in matchers if getattr(m, "matcher_identifier", None) != MATCHER]
    unregister_formatters(shell)
    participants.unregister_shown(shell)
