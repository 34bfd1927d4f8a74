"""Who takes part: a federation and its sites, an invitation, a site's own part."""

from __future__ import annotations

from collections.abc import Sequence

from ..schemas.federation import Federation, Run
from ..schemas.participation import Preflight, PreflightSite
from ..schemas.privacy import PrivacyBudget
from ..schemas.sites import SiteScore, SiteView
from .card import Card, make_card, plain_data
from .document import Bar, Block, Cell, Code, Column, Fold, Line, Strong, Table, facts
from .numbers import clip, count, duration, moment, plural, share, size

__all__ = ["federation_card", "federations_card", "invitations_card", "site_card"]

_SHOWN = 30
_RUNS_SHOWN = 8
_BAR_CELLS = 10

#: What a state means to whoever looks at a site's card.
_DOING = {
    "offered": "a round is offered",
    "accepted": "the round is accepted",
    "plan_fetching": "getting the model",
    "plan_ready": "the model is here",
    "local_training": "training on this site's rows",
    "local_eval": "scoring the model on the rows held out",
    "update_preparing": "preparing the update",
    "clipping": "clipping the update",
    "noising": "adding noise to the update",
    "uploading": "sending the update",
    "uploaded": "the update is sent",
    "acknowledged": "the platform has the update",
    "completed": "waiting for the other sites",
    "declined_policy": "declined",
    "failed_retryable": "trying again",
    "aborted_policy": "the platform refused the update",
    "rejected_local": "the site's own work failed",
    "upload_deferred": "the update waits to be sent",
    "expired_round": "the round is over",
}
_STANDING = {"invited": "invited", "described": "has described its table", "present": "present"}


def federations_card(federations: Sequence[Federation]) -> Card:
    """The federations, as given; empty, it says how to make one."""
    if not federations:
        nothing = [Line.of("No federations yet. Make one: ", Code("%ts_federations icu create"))]
        return make_card("federations", nothing, {"federations": []})
    columns = (Column("Federation"), Column("State"), Column("Sites", "right"), Column("Made"))
    rows = tuple(
        (clip(one.name), one.status, count(len(one.participants)), moment(one.created_at))
        for one in federations[:_SHOWN]
    )
    rest = len(federations) - len(rows)
    more = f"and {plural(rest, 'more federation')}" if rest > 0 else ""
    document: list[Block] = [
        Table("Federations", columns, rows, more),
        Line.of("Look at one: ", Code(f"%ts_federations {federations[0].name}")),
    ]
    listed = [plain_data(one) for one in federations]
    return make_card("federations", document, {"federations": listed})


def federation_card(
    federation: Federation,
    preflight: Preflight | None,
    *,
    runs: Sequence[Run] = (),
    budget: PrivacyBudget | None = None,
    own: Sequence[SiteView] = (),
    said: str = "",
) -> Card:
    """One federation: its sites, whether their tables fit together, its runs, its budget.

    Args:
        preflight: None where the platform compares no tables.
        own: the sites that take part from this kernel; only they know their own ledgers.
        said: what was just done to it, one sentence.
    """
    name = clip(federation.name)
    sites = _sites(federation, preflight)
    document: list[Block] = [Line.of(said)] if said else []
    document.append(Line.of(Strong(name), f", {plural(len(sites), 'site')}, {federation.status}"))
    if federation.description:
        document.append(Line.of(clip(federation.description, 300)))
    document += _sites_table(sites) + _readiness(federation, preflight)
    document += _runs_table(runs)
    document += [_budget_line(budget)] if budget is not None else []
    document += [Line.of(f"{clip(v.site)}: {one.text}") for v in own for one in v.spent]
    data = {
        "federation": plain_data(federation),
        "preflight": None if preflight is None else plain_data(preflight),
        "runs": [{"name": run.name, "status": run.status, "round": run.round} for run in runs],
        "budget": None if budget is None else plain_data(budget),
    }
    return make_card("federation", document, data)


def invitations_card(
    federation: str,
    lines: Sequence[tuple[str, str, str]],
    *,
    setting: Sequence[str],
    same_user: bool,
    shown: bool,
) -> Card:
    """What each invited site runs.

    Args:
        lines: site, the command it runs, and its token.
        setting: lines of a shell that say where the platform is and who the site is, with
            ``{token}`` in the place of the token.
        same_user: a kernel of the federation's owner may join without a token.
        shown: the tokens were shown before and are not shown again.
    """
    document: list[Block] = [
        Line.of(f"Invited to {clip(federation)}: {plural(len(lines), 'site')}.")
    ]
    for site, command, token in lines[:_SHOWN]:
        document.append(Line.of(Strong(clip(site, 60)), " runs ", Code(command)))
        if not shown:
            where = "Its script (--export) instead" if same_user else "There, before Jupyter"
            document.append(Line.of(f"{where}, in a shell:"))
            # A line each: a token that is broken in two is none.
            document += [Line.of(Code(each.format(token=token))) for each in setting]
    if len(lines) > _SHOWN:
        document.append(Line.of(f"and {plural(len(lines) - _SHOWN, 'more site')}"))
    document.append(
        Line.of(
            "The tokens were shown once. A site that lost its token is invited again."
            if shown
            else "A token is shown this once, and no notebook should keep it: the next cell that "
            "runs takes it out of this output; save and share after that."
        )
    )
    data = {"federation": federation, "sites": [site for site, _, _ in lines]}
    return make_card("invitations", document, data)


def site_card(view: SiteView) -> Card:
    """A site's own part: what it does, what left it, what it is worth."""
    document: list[Block] = [
        Line.of(Strong(f"{clip(view.site)} in {clip(view.federation)}"), f", {_where(view)}"),
        *_state_lines(view),
    ]
    document += _scores_table(view)
    document.append(_left_table(view))
    document.append(Line.of(f"Privacy: {_privacy(view)}"))
    document += [Line.of(clip(one.text, 400)) for one in view.spent if one.releases or one.limit]
    if view.policy:
        document.append(Line.of("This site's floor: ", " ".join(view.policy)))
    document += _events_fold(view)
    return make_card("site", document, {"site": plain_data(view)})


# A federation --------------------------------------------------------------------------


def _sites(federation: Federation, preflight: Preflight | None) -> list[PreflightSite]:
    if preflight is not None:
        return preflight.sites
    return [PreflightSite(name=name, status="invited") for name in federation.participants]


def _sites_table(sites: Sequence[PreflightSite]) -> list[Block]:
    if not sites:
        return []
    # Sites with a problem need the look.
    ordered = sorted(sites, key=lambda site: not site.problems)
    rows = tuple(
        (
            clip(site.name, 40),
            _STANDING[site.status],
            "none found" if not site.problems else clip(" ".join(site.problems), 500),
        )
        for site in ordered[:_SHOWN]
    )
    rest = len(sites) - len(rows)
    columns = (Column("Site"), Column("State"), Column("Problems of its table"))
    more = f"and {plural(rest, 'more site')}" if rest > 0 else ""
    return [Table("Sites", columns, rows, more)]


def _readiness(federation: Federation, preflight: Preflight | None) -> list[Block]:
    name = federation.name
    if federation.status == "closed":
        return [
            Line.of("It takes no new site and no new run. Reopen it by starting a run: ",
                    Code(f"%ts_federations {name} open"))
        ]  # fmt: skip
    if not federation.participants:
        return [Line.of("Nobody is invited. Invite: ", Code(f"%ts_federations {name} invite SITE"))]
    if preflight is None:
        return []
    if not preflight.ready:
        described = [site for site in preflight.sites if site.status != "invited"]
        if not described:
            return [
                Line.of("No site has described its table yet. A site does so when it joins: ",
                        Code(f"%ts_join {name} --data df --target COLUMN"))
            ]  # fmt: skip
        if not any(site.problems for site in preflight.sites):
            return [
                Line.of("Not everybody has joined. Start a run when they have: ",
                        Code(f"%ts_federations {name} open --wait"))
            ]  # fmt: skip
        return [Line.of("Not ready: the tables above do not fit together.")]
    found = preflight.signature
    agreed = ""
    if found is not None:
        agreed = (
            f"The tables fit together: {plural(len(found.columns), 'column')}, to predict "
            f"{clip(found.target)} ({clip(', '.join(found.classes), 200)}). "
        )
    return [Line.of(f"{agreed}Start a run: ", Code(f"%ts_federations {name} open"))]


def _runs_table(runs: Sequence[Run]) -> list[Block]:
    if not runs:
        return []
    columns = (Column("Run"), Column("State"), Column("Rounds", "right"), Column("Version"))
    rows = tuple(
        (
            clip(run.name, 40),
            run.status,
            f"{run.round}/{run.plan.rounds}",
            "" if run.model_version is None else f"{clip(run.plan.model, 40)}:{run.model_version}",
        )
        for run in runs[:_RUNS_SHOWN]
    )
    rest = len(runs) - len(rows)
    return [Table("Runs", columns, rows, f"and {plural(rest, 'more run')}" if rest > 0 else "")]


def _budget_line(budget: PrivacyBudget) -> Line:
    spent = "infinite" if budget.epsilon_spent is None else f"{budget.epsilon_spent:.3g}"
    at = f"at delta {budget.delta:g}, in {plural(budget.rounds_consumed, 'round')}"
    if budget.epsilon_budget is None:
        return Line.of(f"Privacy budget: none set; epsilon {spent} spent {at}.")
    return Line.of(f"Privacy budget: epsilon {spent} of {budget.epsilon_budget:g} spent {at}.")


# A site --------------------------------------------------------------------------------


def _where(view: SiteView) -> str:
    if view.run is None:
        return f"waiting for a run, {duration(view.elapsed_s)}"
    place = "means and variances" if view.kind == "statistics" else _round(view)
    return f"run {clip(view.run, 60)}, {place}, {duration(view.elapsed_s)}"


def _round(view: SiteView) -> str:
    return f"round {view.number}/{view.rounds}"


def _state_lines(view: SiteView) -> list[Block]:
    last = view.events[-1] if view.events else None
    if view.status == "failed":
        return [Line.of(Strong("Taking part failed: "), clip(view.reason or "no reason.", 600))]
    if view.status == "stopped":
        why = f": {clip(view.reason, 300)}" if view.reason else "."
        return [
            Line.of(
                Strong(f"Stopped{why}"),
                " Join again to go on; an update that was ready is sent first.",
            )
        ]
    if view.status == "done":
        return [Line.of(f"Done: run {clip(view.run or '', 60)} is over.")]
    if last is None:
        return [Line.of("The table is described. Waiting for the owner to open a run.")]
    more = last.detail or view.progress
    said = f": {clip(more, 300)}" if more else ""
    return [Line.of(f"{_DOING[last.state].capitalize()}{said}")]


def _scores_table(view: SiteView) -> list[Block]:
    if not view.scores:
        return []
    shown = view.scores[-10:]
    own = any(entry.personal is not None for entry in shown)
    columns = [Column("Round"), Column("Accuracy", "right"), Column(), Column("Loss", "right")]
    if own:
        columns += [Column("Personal", "right"), Column(), Column("Loss", "right")]
    rows = tuple(_score_row(entry, own=own) for entry in shown)
    rest = len(view.scores) - len(shown)
    caption = f"The federation's model on {plural(view.held_out_rows, 'row')} this site held out"
    more = f"and {plural(rest, 'earlier round')}" if rest > 0 else ""
    if own:
        caption += ", and the personal one, which stays here"
    return [Table(caption, tuple(columns), rows, more)]


def _score_row(entry: SiteScore, *, own: bool) -> tuple[Cell, ...]:
    row: list[Cell] = [
        count(entry.number),
        share(entry.score.accuracy),
        Bar.of(entry.score.accuracy, _BAR_CELLS),
        f"{entry.loss:.3g}",
    ]
    if own and entry.personal is not None and entry.personal_loss is not None:
        accuracy = entry.personal.accuracy
        row += [share(accuracy), Bar.of(accuracy, _BAR_CELLS), f"{entry.personal_loss:.3g}"]
    elif own:
        row += ["", "", ""]
    return tuple(row)


def _left_table(view: SiteView) -> Table:
    classes = ", ".join(f"{clip(k, 24)} {count(n)}" for k, n in [*view.class_rows.items()][:6])
    own: list[tuple[str, Cell]] = []
    if view.personal is not None:
        own.append(("personal model", f"{clip(view.personal, 120)}; it stays here"))
    rows: list[tuple[str, Cell]] = [
        ("rows trained on", f"{count(view.rows)} ({classes}); they stay here"),
        ("trained by", clip(view.training, 120)),
        *own,
        ("answers sent", f"{count(view.updates_sent)}: aggregates, updates, scores"),
        ("sent", size(view.sent_bytes)),
        ("received", size(view.received_bytes)),
    ]
    return facts("This site", rows)


def _privacy(view: SiteView) -> str:
    if view.privacy is None:
        return "told when a run is opened."
    if view.epsilon is None and view.budget is None:
        return f"{clip(view.privacy, 900).rstrip('.')}."
    spent = "infinite" if view.epsilon is None else f"{view.epsilon:.3g}"
    whole = "infinite" if view.budget is None else f"{view.budget:.3g}"
    return f"epsilon {spent} of {whole}. {clip(view.privacy, 900)}"


def _events_fold(view: SiteView) -> list[Block]:
    if not view.events:
        return []
    columns = (Column("Round"), Column("State"), Column("Detail"))
    rows = tuple(
        (f"{event.kind} {event.number}", event.state, clip(event.detail or "", 300))
        for event in reversed(view.events)
    )
    return [Fold("What it did last", (Table("Newest first", columns, rows),))]
