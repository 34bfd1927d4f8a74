"""Where the platform is, looked up anew for every request: it may have moved or gone.

Everything here blocks for up to a few seconds; handlers call it on a thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from truststram_lab import config
from truststram_lab.client import TrustStramClient
from truststram_lab.exceptions import PlatformUnavailableError, RequestTimeoutError
from truststram_lab.sandbox.process import ask, is_alive
from truststram_lab.sandbox.state import read_state
from truststram_lab.schemas.base import PROTOCOL
from truststram_lab.transport import Target

__all__ = ["Kind", "Place", "SandboxStoppedError", "find", "kind"]

#: the private platform of this computer, or one that the settings name
Kind = Literal["sandbox", "platform"]


class SandboxStoppedError(PlatformUnavailableError):
    """No sandbox runs; starting one is the person's decision."""


@dataclass(frozen=True)
class Place:
    """A platform that can be spoken to.

    Args:
        target: its address and credential.
        version: of the sandbox; None for a configured platform, which says it itself.
    """

    target: Target
    version: str | None = None


def kind() -> Kind:
    """Which platform the settings mean; reads no file and asks nobody."""
    base = config.setting("BASE_URL").value
    chosen = config.setting("ENVIRONMENT", None, "production" if base else "sandbox").value
    return "sandbox" if chosen == "sandbox" else "platform"


def find() -> Place:
    """The platform that the settings mean, by the same rules as a client's; starts nothing.

    Raises:
        SandboxStoppedError: no sandbox runs.
        PlatformUnavailableError: it speaks another protocol.
        RequestTimeoutError: it runs and is too busy to answer.
        ConfigurationError, AuthenticationError: the settings are not enough to find it.
    """
    if kind() == "sandbox":
        return _sandbox()
    with TrustStramClient() as client:
        return Place(client.target.current())


def _sandbox() -> Place:
    state = read_state(config.home())
    # The credential is only shown to the process that the state file is about.
    answer = "gone" if state is None else ask(state)
    if state is not None and answer == "ours":
        if state.protocol != PROTOCOL:
            raise PlatformUnavailableError(
                f"The sandbox that runs here speaks protocol {state.protocol}, Jupyter's "
                f"truststram-lab {PROTOCOL}; stop it with %ts_sandbox stop and start it again."
            )
        return Place(Target(state.url, state.api_key, state.protocol), state.version)
    if state is not None and answer == "silent" and is_alive(state.pid):
        raise RequestTimeoutError(
            f"The sandbox (process {state.pid}) is running but does not answer; try again soon."
        )
    raise SandboxStoppedError(
        "The sandbox is not running; start it in the panel, or with %ts_login --sandbox."
    )
