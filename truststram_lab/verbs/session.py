"""Who is signed in, in this kernel, and which runs this kernel works on."""

from __future__ import annotations

import atexit
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from truststram_lab.config import home
from truststram_lab.exceptions import NotSignedInError

if TYPE_CHECKING:
    from truststram_lab.client import TrustStramClient
    from truststram_lab.federated import FederatedRun
    from truststram_lab.schemas.accounts import Identity

__all__ = ["Session", "current", "end", "require", "start", "stop_runs"]


@dataclass
class Session:
    """One signed-in client and the runs it started, by name, newest last."""

    client: TrustStramClient
    identity: Identity
    place: tuple[str, str] = field(repr=False)
    runs: dict[str, FederatedRun] = field(default_factory=dict)

    def active_run(self, model: str) -> FederatedRun | None:
        """The newest run of ``model`` that this kernel is still working on."""
        for run in reversed(self.runs.values()):
            if run.model == model and run.active:
                return run
        return None


_session: Session | None = None


def current() -> Session | None:
    """The session, or None."""
    return _session


def require(doing: str) -> Session:
    """The session; without one, a sentence on how to sign in before ``doing``."""
    if _session is None:
        raise NotSignedInError(
            f"Sign in before {doing}: %ts_login --sandbox starts a private platform on this "
            "computer (in Python: truststram_lab.login(sandbox=True))."
        )
    return _session


def start(client: TrustStramClient, identity: Identity) -> Session:
    """Make this the session. Signing in again at the same place keeps the session and its runs.

    Returns:
        The session; its client is the former one where that still serves, and ``client`` is
        closed then.
    """
    global _session
    place = _place_of(client)
    former = _session
    if former is not None and former.place == place:
        client.close()
        former.identity = identity
        return former
    _session = Session(client, identity, place)
    if former is not None:
        _stop_all(former)
    return _session


def _place_of(client: TrustStramClient) -> tuple[str, str]:
    """What makes two clients the same: the sandbox's folder, or an address and its key."""
    if client.environment == "sandbox":
        return "sandbox", str(home())
    target = client.target.current()
    return target.base_url, target.token or ""


def end() -> Session | None:
    """Forget the session; runs of this kernel are stopped and can be resumed later."""
    global _session
    former, _session = _session, None
    if former is not None:
        _stop_all(former)
    return former


def stop_runs(session: Session) -> None:
    """Stop what this kernel works on; each run can be resumed."""
    for run in session.runs.values():
        if run.active:
            run.stop()


def _stop_all(session: Session) -> None:
    stop_runs(session)
    session.client.close()


def _at_exit() -> None:
    # A kernel that leaves must not leave training threads to a dying interpreter.
    if _session is not None:
        for run in _session.runs.values():
            run.request_stop()


atexit.register(_at_exit)
