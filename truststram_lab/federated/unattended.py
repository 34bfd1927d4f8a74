"""A site without a notebook: everything it needs comes from arguments and the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from truststram_lab import sandbox
from truststram_lab.client.accounts import Accounts
from truststram_lab.client.participants import ParticipantClient
from truststram_lab.config import setting
from truststram_lab.exceptions import AuthenticationError
from truststram_lab.schemas.personal import parse_personal
from truststram_lab.schemas.sites import SiteView
from truststram_lab.transport import Target, TargetProvider, normal_url
from truststram_lab.transport.drivers import HttpDriver

from .participation.policy import SitePolicy
from .site_run import SiteRun
from .site_table import read_site_table

__all__ = ["Credential", "take_part", "who_is"]

_VARIABLE = "TRUSTSTRAM_FL_TOKEN"


def take_part(
    federation: str,
    frame: Any,
    *,
    target: str,
    positive: str | None = None,
    policy: SitePolicy | None = None,
    train: Callable[..., Any] | None = None,
    personal: str | None = None,
    bounds: Mapping[str, Any] | None = None,
    dp_limit: float | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> SiteView:
    """Take part in the federation's run until it ends; Ctrl-C stops.

    The platform is ``TRUSTSTRAM_BASE_URL``, else this user's sandbox; the site's token is
    ``TRUSTSTRAM_FL_TOKEN``.

    Args:
        frame: a DataFrame; its rows stay here.
        personal: the model of its own that the site keeps, as ``ditto:lambda=0.1``.
        bounds, dp_limit: as in ``SiteRun``.
        tell: given a line for every state.

    Raises:
        AuthenticationError: there is no token, or the platform does not know it.
        TrustStramException: as ``SiteRun.start`` and ``wait``.
    """
    token = os.environ.get(_VARIABLE)
    if not token:
        raise AuthenticationError(
            f"Set {_VARIABLE} to the token of this site's invitation; the federation's owner "
            "makes one with %ts_federations NAME invite SITE."
        )
    table = read_site_table(frame, target, positive)
    base = setting("BASE_URL").value
    provider: TargetProvider = sandbox.target() if base is None else Target(normal_url(base))
    url = provider().base_url
    who = who_is(url, token, federation)
    run = SiteRun(
        ParticipantClient(provider, token),
        table,
        federation=federation,
        site=who.site,
        place="sandbox" if base is None else urlsplit(url).netloc,
        organisation=who.organisation,
        function=train,
        policy=policy,
        personal=None if personal is None else parse_personal(personal),
        bounds=bounds,
        dp_limit=dp_limit,
    )
    told = 0.0

    def tick() -> None:
        nonlocal told
        for event in run.snapshot().events:
            if event.at > told:
                told = event.at
                detail = f": {event.detail}" if event.detail else ""
                tell(f"{event.kind} {event.number}  {event.state}{detail}")

    run.start()
    try:
        run.wait(tick)
    except KeyboardInterrupt:
        run.stop()
        raise run.stopped_error() from None
    tick()
    return run.snapshot()


@dataclass(frozen=True)
class Credential:
    """Whom a token belongs to."""

    federation: str
    site: str
    organisation: str


def who_is(url: str, token: str, federation: str) -> Credential:
    """Whose token it is.

    Raises:
        AuthenticationError: the platform does not know it, it is no site's, or of another
            federation.
    """
    driver = HttpDriver(Target(url, token))
    try:
        found = Accounts(driver).whoami()
    except AuthenticationError as error:
        raise AuthenticationError(
            f"The platform at {url} does not know this site's token; ask the owner of "
            f"{federation!r} for a new invitation."
        ) from error
    finally:
        driver.close()
    if found.role != "site":
        raise AuthenticationError(
            f"The token is of {found.name!r}, who is {found.role} of the platform and no site; "
            f"use the token of this site's invitation to {federation!r}."
        )
    # The platform's name of a site is federation/site; a federation's name has no slash.
    own, _, site = found.name.partition("/")
    if own != federation:
        raise AuthenticationError(
            f"The token is of site {site!r} in federation {own!r}, not in {federation!r}; join "
            f"{own}, or use the token of the other invitation."
        )
    return Credential(own, site, found.organisation)
