"""Who is signed in, in this kernel, and which runs this kernel works on."""

from __future__ import annotations

import atexit
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from truststram_lab.exceptions import NotSignedInError

if TYPE_CHECKING:
    from truststram_lab.client import TrustStramClient
    from truststram_lab.federated import FederatedRun
    from truststram_lab.schemas.accounts import Identity

__all__ = ["Session", "current", "end", "require", "start"]


@dataclass
class Session:
    """One signed-in client and the runs it started, by name, newest last."""

    client: TrustStramClient
    identity: Identity
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
    """Make this the session; runs of the same platform are kept, so a cell can be re-run."""
    global _session
    former = _session
    _session = Session(client, identity)
    if former is not None:
        if former.client.base_url == client.base_url:
            _session.runs.update(former.runs)
            # Their threads still use the former client; it is closed with the last of them.
            if not any(run.active for run in former.runs.values()):
                former.client.close()
        else:
            _stop_all(former)
    return _session


def end() -> Session | None:
    """Forget the session; runs of this kernel are stopped and can be resumed later."""
    global _session
    former, _session = _session, None
    if former is not None:
        _stop_all(former)
    return former


def _stop_all(session: Session) -> None:
    for run in session.runs.values():
        if run.active:
            run.stop()
    session.client.close()


def _at_exit() -> None:
    # A kernel that leaves must not leave training threads to a dying interpreter.
    if _session is not None:
        for run in _session.runs.values():
            run.request_stop()


atexit.register(_at_exit)
