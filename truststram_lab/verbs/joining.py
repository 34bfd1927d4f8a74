"""How this kernel becomes a site: whose credential, on which platform, under which floor."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from truststram_lab.auth import TokenStore
from truststram_lab.client.participants import ParticipantClient
from truststram_lab.config import setting
from truststram_lab.exceptions import (
    AuthenticationError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    nearest,
)
from truststram_lab.federated.participation.policy import SitePolicy
from truststram_lab.federated.unattended import who_is
from truststram_lab.schemas.federation import Run
from truststram_lab.transport import Target, TargetProvider, normal_url

from . import session as sessions

__all__ = ["TOKEN_VARIABLE", "Door", "find_door", "policy_of", "run_named"]

#: Where a site's token is looked for when no other variable is named.
TOKEN_VARIABLE = "TRUSTSTRAM_FL_TOKEN"  # noqa: S105 - a variable's name

Status = Callable[[str], tuple[str, str | None]]


@dataclass(frozen=True)
class Door:
    """Where a site enters: the platform, and who it is there.

    ``place`` names the platform in the site's folders; ``status_of`` is None where nobody in
    this kernel may look at the run.
    """

    port: ParticipantClient
    site: str
    organisation: str
    place: str
    status_of: Status | None


def find_door(federation: str, site: str | None, token_env: str | None) -> Door:
    """The way in for ``site``: by its token, or, in the sandbox of this user, without one.

    Raises:
        NotSignedInError: no platform is configured and nobody is signed in.
        AuthenticationError: a token is needed, or the platform does not know it.
        NotFoundError: no such federation or site; the nearest is in the sentence.
        ConflictError: the federation is closed to this site.
    """
    token = _given_token(token_env)
    session = sessions.current()
    if token is None and session is not None and session.identity.role == "site":
        token = session.client.target.current().token
    if token is None and site is not None:
        token = TokenStore().get(_stored_name(_url(session), federation, site))
    if token is not None:
        return _door_by_token(session, federation, site, token, keep=token_env is None)
    session = sessions.require(f"joining {federation}")
    if session.client.environment != "sandbox":
        raise AuthenticationError(
            f"Joining {federation!r} needs the token of this site's invitation; set "
            f"{TOKEN_VARIABLE} before Jupyter starts, or name another variable with --token-env."
        )
    return _own_door(session, federation, site)


def run_named(name: str) -> Run:
    """A run as its owner's platform has it, for a site that asks before it joins.

    Raises:
        NotSignedInError, RunNotFoundError: nobody here may look at it, or there is none.
    """
    return sessions.require(f"looking at run {name}").client.runs.get(name)


def policy_of(**given: Any) -> SitePolicy:
    """The floor that the flags of a line set; what is None is not in it.

    Raises:
        InvalidInputError: no positive number, or an unknown strategy.
    """
    return SitePolicy.parse({name: value for name, value in given.items() if value is not None})


def _given_token(token_env: str | None) -> str | None:
    if token_env is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    found = os.environ.get(token_env)
    if not found:
        near = nearest(token_env, os.environ, most=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise AuthenticationError(
            f"There is no environment variable {token_env} to take the site's token from; {hint}"
            "Set it before Jupyter starts."
        )
    return found


def _url(session: sessions.Session | None) -> str:
    if session is not None:
        return session.client.base_url
    base = setting("BASE_URL").value
    return normal_url(base) if base is not None else sessions.require("joining").client.base_url


def _stored_name(url: str, federation: str, site: str) -> str:
    return f"{url} {federation}/{site}"


def _door_by_token(
    session: sessions.Session | None, federation: str, site: str | None, token: str, *, keep: bool
) -> Door:
    url = _url(session)
    target: TargetProvider = Target(url) if session is None else session.client.target
    who = who_is(url, token, federation)
    if site is not None and who.site != site:
        raise AuthenticationError(
            f"The token is of site {who.site!r}, not of {site!r}; leave --as out, or use the "
            f"token of {site!r}."
        )
    if keep:
        TokenStore().set(_stored_name(url, federation, who.site), token)
    sandbox = session is not None and session.client.environment == "sandbox"
    return Door(
        port=ParticipantClient(target, token),
        site=who.site,
        organisation=who.organisation,
        place="sandbox" if sandbox else urlsplit(url).netloc,
        status_of=_status_of(session),
    )


def _own_door(session: sessions.Session, federation: str, site: str | None) -> Door:
    found = session.client.federations.get(federation)
    name = _chosen(found.participants, federation, site)
    if found.status == "closed":
        raise ConflictError(
            f"Federation {federation!r} is closed; open it again with %ts_federations "
            f"{federation} open."
        )
    invitation = session.client.federations.invite(federation, [name], keep=True)[0]
    return Door(
        port=session.client.participant(invitation.token),
        site=name,
        organisation=session.identity.organisation,
        place="sandbox",
        status_of=_status_of(session),
    )


def _chosen(participants: Sequence[str], federation: str, site: str | None) -> str:
    if site is None:
        if len(participants) == 1:
            return participants[0]
        known = f"; its sites are {', '.join(participants[:10])}" if participants else ""
        raise InvalidInputError(
            f"Which site of {federation!r} is this? Say it with --as{known or ' NAME'}.",
            field="site",
            choices=list(participants[:10]),
        )
    if site in participants:
        return site
    near = nearest(site, participants, most=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise NotFoundError(
        f"{site!r} is not invited to {federation!r}; {hint}Invite it with %ts_federations "
        f"{federation} invite {site}.",
        name=site,
        choices=near,
    )


def _status_of(session: sessions.Session | None) -> Status | None:
    if session is None or session.identity.role == "site":
        return None
    client = session.client

    def status(run: str) -> tuple[str, str | None]:
        found = client.runs.get(run)
        return found.status, found.reason

    return status
