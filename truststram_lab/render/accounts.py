"""Who am I, where, and what next: the cards of sessions and of this computer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..config import Decided
from ..schemas.accounts import Identity
from .card import Card, make_card, plain_data
from .document import Block, Code, Column, Fold, Line, Strong, Table, facts
from .numbers import clip, count, moment

__all__ = ["doctor_card", "identity_card", "notice_card", "sandbox_card", "where_card"]


def identity_card(identity: Identity, *, url: str, notices: Sequence[str] = ()) -> Card:
    """Who is signed in, where, and what to do next."""
    document: list[Block] = [_signed_in(identity, url)]
    document += [Line.of(f"Note: {clip(notice, 400)}") for notice in notices]
    document += [
        Line.of("Next: ", Code("%ts_federate breast-cancer")),
        Fold("Details", (_identity_facts(identity, url),)),
    ]
    data = {"identity": plain_data(identity), "url": url, "notices": list(notices)}
    return make_card("identity", document, data)


def where_card(
    identity: Identity | None,
    *,
    facts: Mapping[str, str],
    next_steps: Sequence[tuple[str, str]] = (),
    settings: Sequence[Decided] = (),
) -> Card:
    """Where am I, what can I do.

    Args:
        identity: None before sign-in.
        facts: what is known of the place, by name.
        next_steps: commands and what each does.
        settings: what holds, and which variable decided.
    """
    document: list[Block] = [
        Line.of("○ Not signed in") if identity is None else _signed_in(identity)
    ]
    document += _fact_table("Here", facts)
    if next_steps:
        rows = tuple((Code(command), meaning) for command, meaning in next_steps)
        document.append(Table("What you can do now", (Column(), Column()), rows))
    if settings:
        document.append(_settings(settings))
    data = {
        "identity": None if identity is None else plain_data(identity),
        "facts": dict(facts),
        "next_steps": [list(step) for step in next_steps],
        "settings": [[each.known.name, each.value, each.source] for each in settings],
    }
    return make_card("where", document, data)


def _settings(settings: Sequence[Decided]) -> Fold:
    rows = tuple(
        (
            Code(f"TRUSTSTRAM_{each.known.name}"),
            each.known.meaning,
            clip(each.value, 120),
            each.source + (f" ({each.ignored} is set, too, and ignored)" if each.ignored else ""),
        )
        for each in settings
    )
    columns = (Column("Setting"), Column("What it is"), Column("Now"), Column("Decided by"))
    chosen = sum(each.source != "default" for each in settings)
    said = f"Settings: {count(chosen)} from the environment" if chosen else "Settings: all default"
    return Fold(said, (Table("Settings of the environment", columns, rows),))


def sandbox_card(*, running: bool, facts: Mapping[str, str]) -> Card:
    """The private platform on this computer: whether it runs, and what is known of it."""
    document: list[Block] = [
        Line.of(Strong("● Sandbox runs"), " on this computer; data stays here")
        if running
        else Line.of(
            Strong("○ Sandbox is not running"), "; models and runs are kept, nothing is lost"
        )
    ]
    document += _fact_table("Its process" if running else "To go on", facts)
    return make_card("sandbox", document, {"running": running, "facts": dict(facts)})


def doctor_card(sections: Mapping[str, Mapping[str, str]]) -> Card:
    """An environment report, one table a section."""
    document: list[Block] = [
        Line.of(Strong("Environment report"), "; safe to paste: it holds no keys and no paths")
    ]
    for title, entries in sections.items():
        document += _fact_table(title, entries)
        if not entries:
            document.append(Line.of(f"{title}: nothing to report"))
    data = {"sections": {title: dict(entries) for title, entries in sections.items()}}
    return make_card("doctor", document, data)


def notice_card(text: str) -> Card:
    """One sentence; what it says to type stands as it is to be typed."""
    return make_card("notice", [Line.of(clip(text, 2000))], {"text": text})


def _signed_in(identity: Identity, url: str = "") -> Line:
    if identity.environment == "sandbox":
        return Line.of(Strong("● Signed in: sandbox"), ", this computer; data stays here")
    at = f" at {clip(url, 80)}" if url else ""
    return Line.of(
        Strong(f"● Signed in: {clip(identity.organisation)}"),
        f"{at}, as {clip(identity.name)} ({identity.role})",
    )


def _identity_facts(identity: Identity, url: str) -> Table:
    return facts(
        "Account and platform",
        (
            ("organisation", f"{clip(identity.organisation)} ({identity.organisation_id})"),
            ("name", f"{clip(identity.name)} ({identity.principal_id})"),
            ("role", identity.role),
            ("environment", clip(identity.environment)),
            ("address", clip(url, 120)),
            ("platform", f"version {identity.platform_version}, protocol {identity.protocol}"),
        ),
    )


def _fact_table(caption: str, entries: Mapping[str, str]) -> list[Block]:
    if not entries:
        return []
    rows = [
        (clip(name), moment(value) if _is_moment(value) else clip(value, 300))
        for name, value in entries.items()
    ]
    return [facts(clip(caption), rows)]


def _is_moment(value: str) -> bool:
    return len(value) >= len("2026-01-01T00:00") and value[:4].isdigit() and value[10:11] == "T"
