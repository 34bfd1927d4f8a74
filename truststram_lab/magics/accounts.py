"""Where am I, sign in, sign out, and the platform's process."""

from __future__ import annotations

import getpass
import sys
from dataclasses import dataclass
from typing import Any

from truststram_lab.config import setting
from truststram_lab.exceptions import AuthenticationError, ConfigurationError

from . import completers
from .command import Line, VerbCall, command
from .parsing import argument, one_of

__all__ = ["login", "logout", "sandbox", "where"]

_SANDBOX_ACTIONS = ("start", "stop", "status", "reset")


@command(
    "ts",
    argument(
        "topic",
        metavar="doctor",
        nargs="?",
        type=one_of("doctor"),
        complete=completers.words("doctor"),
        help="a report on this environment that is safe to paste",
    ),
    summary="Where am I, and what can I do?",
    examples=("%ts", "%ts doctor"),
)
def where(line: Line) -> VerbCall:
    """``%ts`` and ``%ts doctor``."""
    return VerbCall("doctor" if "topic" in line.given else "where")


@command(
    "ts_login",
    argument(
        "--sandbox",
        action="store_true",
        help="the private platform on this computer; no account, and data stays here",
    ),
    argument("--url", metavar="URL", help="a standing platform, such as https://host"),
    summary=(
        "Sign in. The key of a platform is never written on the line: it comes from\n"
        "TRUSTSTRAM_API_KEY, from the last sign-in, or from a prompt that does not show it."
    ),
    examples=("%ts_login --sandbox", "%ts_login --url https://platform.hospital.example"),
    secret=True,
)
def login(line: Line) -> VerbCall:
    """``%ts_login``."""
    return _Login("login", kwargs=line.given)


@command(
    "ts_logout", summary="Sign out; runs of this kernel are stopped.", examples=("%ts_logout",)
)
def logout(_: Line) -> VerbCall:
    """``%ts_logout``."""
    return VerbCall("logout")


@command(
    "ts_sandbox",
    argument(
        "action",
        metavar="start|stop|status|reset",
        nargs="?",
        type=one_of(*_SANDBOX_ACTIONS),
        complete=completers.words(*_SANDBOX_ACTIONS),
        help="status, when left out; reset erases models, runs and accounts",
    ),
    argument("--yes", action="store_true", help="do erase"),
    summary="The private platform on this computer.",
    examples=("%ts_sandbox", "%ts_sandbox stop", "%ts_sandbox reset --yes"),
)
def sandbox(line: Line) -> VerbCall:
    """``%ts_sandbox``."""
    given = dict(line.given)
    action = given.pop("action", None)
    return VerbCall("sandbox", () if action is None else (action,), given)


@dataclass(frozen=True)
class _Login(VerbCall):
    """A sign-in that asks for the key where one is needed, and somebody can be asked."""

    def run(self) -> Any:
        try:
            return super().run()
        except (AuthenticationError, ConfigurationError):
            # No key was found, or the stored one has expired.
            key = None if self._needs_no_prompt() else _ask("API key (it is not shown): ")
            if key is None:
                raise
        return VerbCall(self.verb, kwargs={**self.kwargs, "api_key": key}).run()

    def _needs_no_prompt(self) -> bool:
        platform = setting("BASE_URL", self.kwargs.get("url")).value
        chosen = setting("API_KEY").value
        return "sandbox" in self.kwargs or platform is None or chosen is not None


def _ask(prompt: str) -> str | None:
    """What a person types, unseen; None where nobody can be asked."""
    from IPython.core.error import StdinNotImplementedError

    in_kernel = "ipykernel" in sys.modules
    if not in_kernel and not (sys.stdin and sys.stdin.isatty()):
        return None
    try:
        return getpass.getpass(prompt).strip() or None
    except (EOFError, StdinNotImplementedError):
        # ipykernel says so when the front end has no prompt, as when notebooks run unattended.
        return None
