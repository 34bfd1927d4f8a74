"""The sandbox's process: start, stop, status, reset."""

from __future__ import annotations

from truststram_lab import sandbox as process

from . import session as sessions
from .choices import confirmed, not_an_action
from .results import Notice, SandboxStatus

__all__ = ["SANDBOX_ACTIONS", "sandbox"]

SANDBOX_ACTIONS = ("start", "stop", "status", "reset")


def sandbox(action: str = "status", *, yes: bool = False) -> SandboxStatus | Notice:
    """Start, stop, look at or erase the private platform of this user.

    ``reset`` deletes models, runs and accounts of the sandbox, so it wants ``yes=True``.
    """
    if action == "start":
        process.ensure()
        return _status()
    if action == "status":
        return _status()
    session = sessions.current()
    here = session is not None and session.client.environment == "sandbox"
    if action == "stop":
        if session is not None and here:
            # Else a run that goes on would start it again at once.
            sessions.stop_runs(session)
        return Notice(
            "The sandbox is stopped; the next command that needs it starts it with all its state."
            if process.stop()
            else "The sandbox was not running."
        )
    if action == "reset":
        what = "A reset deletes every model, run and account of the sandbox"
        confirmed(yes, what, "%ts_sandbox reset")
        if here:
            sessions.end()
        process.reset(confirm=True)
        return Notice("The sandbox is empty; sign in again with %ts_login --sandbox.")
    raise not_an_action(action, SANDBOX_ACTIONS, "the sandbox")


def _status() -> SandboxStatus:
    state = process.status()
    if state is None:
        return SandboxStatus(False, {"start it": "%ts_sandbox start, or %ts_login --sandbox"})
    return SandboxStatus(
        True,
        {
            "address": state.url,
            "process": str(state.pid),
            "version": state.version,
            "protocol": str(state.protocol),
            "started": state.started_at,
        },
    )
