"""Sign in and out, and say where one is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from truststram_lab import __version__
from truststram_lab.auth import TokenStore
from truststram_lab.client import TrustStramClient
from truststram_lab.client.diagnostics import environment_report
from truststram_lab.config import decided, setting
from truststram_lab.exceptions import ConfigurationError, TrustStramException

from . import session as sessions
from .results import DoctorReport, Notice, SignedIn, Where

if TYPE_CHECKING:
    from truststram_lab.schemas.accounts import Identity

__all__ = ["doctor", "login", "logout", "where"]


def login(*, sandbox: bool = False, url: str | None = None, api_key: str | None = None) -> SignedIn:
    """Sign this kernel in: to the sandbox on this computer, or to a platform by its URL.

    Args:
        sandbox: start, or find, the private platform of this user.
        url: address of a standing platform; else ``TRUSTSTRAM_BASE_URL``.
        api_key: its key; else ``TRUSTSTRAM_API_KEY``, else the key that was stored at the
            last sign-in. It is kept in the system's keyring, or in memory only.

    Raises:
        ConfigurationError: both a sandbox and a URL.
        AuthenticationError: there is no key, or the platform does not know it.
    """
    if sandbox and (url or api_key):
        raise ConfigurationError(
            "The sandbox needs neither a URL nor a key; leave --sandbox or the others out."
        )
    base_url = None if sandbox else setting("BASE_URL", url).value
    if base_url is None:
        client = TrustStramClient(environment="sandbox")
    else:
        client = TrustStramClient(api_key, environment="production", base_url=base_url)
    try:
        identity = client.accounts.whoami()
    except BaseException:
        client.close()
        raise
    client = sessions.start(client, identity).client
    key = None if base_url is None else setting("API_KEY", api_key).value
    # Kept only once it has proved right.
    notice = None if key is None else TokenStore().set(client.base_url, key)
    return SignedIn(identity, client.base_url, () if notice is None else (notice,))


def logout() -> Notice:
    """Forget the session of this kernel and its stored key; runs of this kernel are stopped."""
    former = sessions.end()
    if former is None:
        return Notice("Nobody was signed in here.")
    if former.client.environment != "sandbox":
        TokenStore().delete(former.client.base_url)
    return Notice(
        f"Signed out of {_place(former.client)}; sign in again with %ts_login"
        f"{' --sandbox' if former.client.environment == 'sandbox' else ''}."
    )


def where() -> Where:
    """Where am I, what can I do: identity, platform, which setting decided, next steps."""
    session = sessions.current()
    base = setting("BASE_URL")
    facts = {
        "package": f"truststram-lab {__version__}",
        "platform address from": base.source if base.value else "sandbox (default)",
    }
    if session is None:
        steps = (("%ts_login --sandbox", "sign in on this computer"),)
        return Where(None, facts, steps, tuple(decided()))
    identity = _refreshed(session, facts)
    facts["platform"] = f"{_place(session.client)}, version {identity.platform_version}"
    active = [name for name, run in session.runs.items() if run.active]
    facts["runs in this kernel"] = ", ".join(active) or "none active"
    return Where(
        identity,
        facts,
        (
            ("%ts_federate breast-cancer", "train one model across five simulated sites"),
            ("%ts_predict breast-cancer --example --explain", "predict, and see why"),
            ("%ts_runs", "the runs"),
            ("%ts_models", "the models"),
            ("%ts_deployments", "what is served"),
            ("%ts_sandbox status", "the platform's process"),
        ),
        tuple(decided()),
    )


def doctor() -> DoctorReport:
    """An environment report that is safe to paste: versions and states, no names or paths."""
    session = sessions.current()
    return DoctorReport(environment_report(None if session is None else session.client))


def _refreshed(session: sessions.Session, facts: dict[str, str]) -> Identity:
    try:
        session.identity = session.client.accounts.whoami()
        facts["connection"] = "answers"
    except TrustStramException as error:
        facts["connection"] = f"no answer ({type(error).__name__})"
    return session.identity


def _place(client: TrustStramClient) -> str:
    return "the sandbox on this computer" if client.environment == "sandbox" else client.base_url
