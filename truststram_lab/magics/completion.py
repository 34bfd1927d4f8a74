"""Completion of command lines, driven by the parsers that run them."""

from __future__ import annotations

import logging
import re
import shlex
import threading
from argparse import Action
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .command import COMMANDS, Command
from .completers import Completing
from .namespace import Scope
from .parsing import LineParser

__all__ = ["MATCHER", "Candidates", "complete_line", "matcher_for"]

_log = logging.getLogger(__name__)

#: The matcher's name in IPython's settings.
MATCHER = "truststram_lab"

#: How long typing may wait for names that the platform has to tell.
_WAIT_S = 0.2

_COMMAND = re.compile(
    r"""\s*(?:(?P<assigned>[^=%'"]*=)\s*)?   # x =
        (?P<escape>%{0,2})(?P<name>ts\w*)\s+(?P<rest>.*)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Candidates:
    """What can replace ``fragment``, the text just before the cursor."""

    fragment: str
    texts: list[str]
    type: str = "value"


def complete_line(text: str, scope: Scope, names: Callable[[str], list[str]]) -> Candidates | None:
    """Candidates at the end of ``text``; None if it is no command of ours.

    Args:
        text: the cell's current line, up to the cursor, with the lines it continues.
        names: see :class:`Completing`.
    """
    found = _COMMAND.fullmatch(text)
    if found is None or found["name"] not in COMMANDS:
        return None
    if not found["escape"] and (found["assigned"] or scope.knows(found["name"])):
        return None
    command = COMMANDS[found["name"]]
    rest = found["rest"]
    fragment = rest[_last_word_start(rest) :]
    given, position, awaited = _read(command.parser, rest[: len(rest) - len(fragment)])
    if awaited is None and fragment.startswith("-") and "=" in fragment:
        flag, _, fragment = fragment.partition("=")
        awaited = command.parser.flags.get(flag)
    if awaited is None and fragment.startswith("-"):
        return Candidates(fragment, _flags(command, fragment, given), "param")
    action = awaited or position
    line = Completing(given, scope, names, fragment)
    texts = _values(command.parser, action, fragment, line)
    if awaited is None and not fragment:
        # Nothing is typed yet: the words that fit, then the flags.
        texts += _flags(command, "", given)
    return Candidates(fragment, texts)


def matcher_for(shell: Any) -> Callable[[Any], dict[str, Any]]:
    """The matcher to append to ``shell.Completer.custom_matchers``."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    names = _PlatformNames()

    def matcher(context: Any) -> dict[str, Any]:
        nothing: dict[str, Any] = {"completions": [], "suppress": False}
        try:
            found = complete_line(_continued(context), Scope(shell.user_ns), names)
        except Exception:  # noqa: BLE001 - somebody is typing: no completion beats a traceback
            _log.debug("Completion failed.", exc_info=True)
            return nothing
        if found is None:
            return nothing
        return {
            "completions": [SimpleCompletion(text=t, type=found.type) for t in found.texts],
            "matched_fragment": found.fragment,
            "ordered": True,
            "suppress": True,
        }

    declared: Callable[[Any], dict[str, Any]] = context_matcher(
        identifier=MATCHER, priority=100, api_version=2
    )(matcher)
    return declared


class _PlatformNames:
    """Names from the platform, within :data:`_WAIT_S`; what comes later serves the next time.

    The first call also loads the client, which takes longer than anybody waits to type.
    """

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}
        self._asking: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def __call__(self, kind: str) -> list[str]:
        with self._lock:
            thread = self._asking.get(kind)
            if thread is None or not thread.is_alive():
                thread = threading.Thread(target=self._ask, args=(kind,), daemon=True)
                self._asking[kind] = thread
                thread.start()
        thread.join(_WAIT_S)
        return self._known.get(kind, [])

    def _ask(self, kind: str) -> None:
        try:
            self._known[kind] = list(import_module("truststram_lab.verbs").completion_names(kind))
        except Exception:  # noqa: BLE001 - as above
            _log.debug("Names of %s could not be had.", kind, exc_info=True)


def _continued(context: Any) -> str:
    """The text up to the cursor, and the lines before that end in a backslash."""
    lines = context.full_text.split("\n")
    text: str = lines[context.cursor_line][: context.cursor_position]
    row = context.cursor_line
    while row > 0 and lines[row - 1].endswith("\\"):
        row -= 1
        text = lines[row][:-1] + " " + text
    return text if row == 0 or not text.lstrip().startswith("%%") else ""


def _last_word_start(text: str) -> int:
    """Where the word begins that the end of ``text`` is in; blanks in quotes do not count."""
    start, quote = 0, ""
    for at, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character.isspace():
            start = at + 1
    return start


def _read(parser: LineParser, text: str) -> tuple[dict[str, str], Action | None, Action | None]:
    """What complete words say: values, the next word's place, the flag that waits for one."""
    given: dict[str, str] = {}
    free = list(parser.words)
    awaited: Action | None = None
    for word in shlex.split(text):
        flag, has_value, value = word.partition("=")
        action = parser.flags.get(flag)
        if awaited is not None:
            given[awaited.dest] = word
            awaited = None
        elif action is not None:
            given[action.dest] = value
            awaited = None if has_value or action.nargs == 0 else action
        elif free:
            given[free[0].dest] = word
            if free[0].nargs != "*":
                del free[0]
    return given, (free[0] if free else None), awaited


def _flags(command: Command, typed: str, given: Mapping[str, str]) -> list[str]:
    return [
        flag
        for flag, action in command.parser.flags.items()
        if action.dest not in given and flag.startswith(typed)
    ]


def _values(
    parser: LineParser, action: Action | None, fragment: str, line: Completing
) -> list[str]:
    complete = None if action is None else parser.completers.get(action.dest)
    if complete is None:
        return []
    quote = fragment[:1] if fragment[:1] in ("'", '"') else ""
    typed = fragment.removeprefix(quote).casefold()
    found = [name for name in complete(line) if name.casefold().startswith(typed)]
    return [_quoted(name, quote) for name in found]


def _quoted(name: str, quote: str) -> str:
    if quote and quote not in name and "\\" not in name:
        return f"{quote}{name}{quote}"
    return shlex.quote(name)
