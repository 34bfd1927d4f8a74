"""Join a federation with one's own data, and manage federations."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from . import completers
from .command import Line, VerbCall, command
from .join_cell import CellCall, function_named, name_in_cell, user_functions
from .parsing import argument, one_of, real_number, whole_number

__all__ = ["federations", "join", "register_shown", "unregister_shown"]

_ACTIONS = ("create", "invite", "open", "close", "budget")
_SHOWN = (
    ("truststram_lab.federated.site_run", "SiteRun"),
    ("truststram_lab.federated.open_run", "OpenRun"),
    ("truststram_lab.verbs.participant_results", "Invitations"),
)


def _words(text: str) -> list[str]:
    """Words with commas between them."""
    return [word.strip() for word in text.split(",") if word.strip()]


def _federations(line: completers.Completing) -> list[str]:
    return line.names("federations")


def _sites(line: completers.Completing) -> list[str]:
    """Sites of the federation that the line names."""
    name = line.given.get("federation") or line.given.get("name", "")
    found = (entry.partition("/") for entry in line.names("sites"))
    return [site for federation, _, site in found if federation == name]


def _functions(_: completers.Completing) -> list[str]:
    return user_functions()


@command(
    "ts_join",
    argument(
        "federation",
        metavar="FEDERATION",
        complete=_federations,
        help="the federation that invited this site",
    ),
    argument(
        "--data",
        metavar="VAR",
        required=True,
        complete=completers.data_sets_and_frames,
        help="this site's DataFrame; its rows stay here",
    ),
    argument(
        "--target",
        metavar="COL",
        complete=completers.columns_of_data,
        help="the column to predict; needed for a DataFrame",
    ),
    argument(
        "--as",
        dest="site",
        metavar="SITE",
        complete=_sites,
        help="which site this is; that of its invitation when left out",
    ),
    argument(
        "--train",
        metavar="FUNCTION",
        complete=_functions,
        help="your train(state) or fit(parameters, config); it runs in this kernel",
    ),
    argument(
        "--rounds-of",
        metavar="RUN",
        complete=completers.runs,
        help="take part in this run only",
    ),
    argument(
        "--positive",
        metavar="LABEL",
        complete=completers.labels_of_target,
        help="the class that is looked for, where there are two",
    ),
    argument(
        "--personal",
        metavar="ditto[:lambda=0.1]",
        complete=completers.words("ditto", "ditto:lambda=0.1", "fedper:head="),
        help="keep a model of this site's own beside the federation's; or fedper:head=LAYERS",
    ),
    argument("--dry-run", action="store_true", help="show what would leave, and send nothing"),
    argument(
        "--export",
        metavar="FILE.py",
        help="write a script for an unattended site, and join nothing",
    ),
    argument(
        "--filter",
        dest="filters",
        action="append",
        metavar="TYPE[:KEY=X,...]",
        complete=completers.filters,
        help="what this site itself does to an update, before the federation's filters; may "
        "come several times",
    ),
    argument(
        "--max-clip",
        metavar="NORM",
        type=real_number,
        help="this site's floor: updates are clipped to this norm or less",
    ),
    argument(
        "--min-noise",
        metavar="SIGMA",
        type=real_number,
        help="floor: updates carry noise of this standard deviation or more",
    ),
    argument(
        "--max-epsilon",
        metavar="E",
        type=real_number,
        help="floor: a run spends this epsilon or less",
    ),
    argument(
        "--max-rounds", metavar="N", type=whole_number, help="floor: a run has so many rounds"
    ),
    argument(
        "--allow-strategy",
        metavar="A,B",
        type=_words,
        complete=completers.strategies,
        help="floor: only these strategies",
    ),
    argument(
        "--allow-model",
        metavar="A,B",
        type=_words,
        complete=completers.models,
        help="floor: only these models",
    ),
    argument(
        "--no-statistics",
        action="store_true",
        help="floor: no means or variances of columns leave",
    ),
    argument(
        "--bounds",
        metavar="VAR",
        complete=completers.mappings,
        help="a dict of column and (least, greatest) value, where a run protects rows",
    ),
    argument(
        "--dp-limit",
        metavar="E",
        type=real_number,
        help="the most that all runs of all federations may ever spend on this data; stays set",
    ),
    argument(
        "--token-env",
        metavar="NAME",
        help="the environment variable with this site's token; never the token itself",
    ),
    argument("--background", action="store_true", help="give the prompt back at once"),
    summary=(
        "Take part in a federation with your data; only updates leave this kernel.\n"
        "It waits, live; Kernel > Interrupt stops it, and the same line goes on where it was.\n"
        "As a cell, %%ts_join runs the function train(state) that the cell defines."
    ),
    examples=(
        "%ts_join icu --data df --target died --dry-run",
        "%ts_join icu --data df --target died --as north",
        "%ts_join icu --data df --target died --train fit --max-epsilon 3",
        "%ts_join icu --data df --target died --personal ditto:lambda=0.1",
        "%ts_join icu --data df --target died --export site.py",
        "%%ts_join icu --data df --target died",
    ),
    cell=True,
)
def join(line: Line) -> VerbCall:
    """``%ts_join`` and ``%%ts_join``."""
    given = dict(line.given)
    demos = import_module("truststram_lab.verbs").completion_names("datasets")
    words: tuple[Any, ...] = (
        given.pop("federation"),
        line.scope.data(given.pop("data"), demos),
    )
    if "bounds" in given:
        given["bounds"] = line.scope.variable(given["bounds"])
    if line.cell is not None:
        given.pop("train", None)
        return CellCall("join", words, given, cell=line.cell, function=name_in_cell(line.cell))
    if given.get("train") == "fit" and not line.scope.knows("fit"):
        del given["train"]  # the run's own network, by the house's training
    if "train" in given:
        given["train"] = function_named(given["train"], line.scope)
    return VerbCall("join", words, given)


@command(
    "ts_federations",
    argument("name", metavar="NAME", nargs="?", complete=_federations, help="show this federation"),
    argument(
        "action",
        metavar="create|invite|open|close|budget",
        nargs="?",
        type=one_of(*_ACTIONS),
        complete=completers.words(*_ACTIONS),
        help="make it, invite sites, start a run, end it, or set what it may spend",
    ),
    argument("names", metavar="[SITE ...]", nargs="*", complete=_sites, help="sites to invite"),
    argument("--sites", metavar="A,B", type=_words, help="create: invite these, too"),
    argument("--description", metavar="TEXT", help="create: what it is for"),
    argument(
        "--as",
        dest="model",
        metavar="MODEL",
        complete=completers.models,
        help="open: the model's name; the federation's when left out",
    ),
    argument("--rounds", metavar="N", type=whole_number, help="open: 10 when left out"),
    argument(
        "--strategy",
        metavar="NAME",
        complete=completers.strategies,
        help="open: how updates are put together; fedavg when left out",
    ),
    argument("--positive", metavar="LABEL", help="open: the class that is looked for"),
    argument("--epochs", metavar="N", type=whole_number, help="open: passes over the rows a round"),
    argument("--batch-size", metavar="N", type=whole_number, help="open: rows a step"),
    argument(
        "--lr", dest="learning_rate", metavar="X", type=real_number, help="open: learning rate"
    ),
    argument("--seed", metavar="N", type=whole_number, help="open: 0 when left out"),
    argument(
        "--quorum",
        metavar="N",
        type=whole_number,
        help="open: sites that a round needs; all that have joined when left out",
    ),
    argument(
        "--deadline",
        metavar="SECONDS",
        type=real_number,
        help="open: of a round; without one it waits for everybody",
    ),
    argument(
        "--filter",
        dest="filters",
        action="append",
        metavar="TYPE[:KEY=X,...]",
        complete=completers.filters,
        help="open: what is done to an update before it leaves; may come several times",
    ),
    argument("--dp", metavar="EPSILON", type=real_number, help="open: what this run may spend"),
    argument(
        "--dp-unit",
        dest="dp_unit",
        metavar="record|client",
        complete=completers.words("record", "client"),
        help="open, with --dp: who is hidden, one row of a site (record, when left out) or a "
        "whole site",
    ),
    argument(
        "--sample-rate",
        metavar="Q",
        type=real_number,
        help="open, with --dp: each row's chance to be in a step; 0.1 when left out",
    ),
    argument(
        "--dp-statistics",
        metavar="noised|bounds",
        type=one_of("noised", "bounds"),
        complete=completers.words("noised", "bounds"),
        help="open, with --dp: means and variances by noise, a tenth of epsilon (when left out), "
        "or by the sites' bounds alone",
    ),
    argument(
        "--clip",
        metavar="NORM",
        type=real_number,
        help="open, with --dp: of a row's gradient, or of an update",
    ),
    argument(
        "--epsilon",
        metavar="E",
        type=real_number,
        help="budget: what the sites' data may ever spend",
    ),
    argument("--delta", metavar="D", type=real_number, help="of --dp, or of the budget"),
    argument(
        "--unit",
        metavar="record|client",
        type=one_of("record", "client"),
        complete=completers.words("record", "client"),
        help="budget: of whose data, one row or one site; record when left out",
    ),
    argument(
        "--wait",
        action="store_true",
        help="open: wait until all who are invited, or --quorum of them, have joined",
    ),
    argument("--resume", action="store_true", help="open: go on with the newest stopped run"),
    argument("--background", action="store_true", help="give the prompt back at once"),
    summary=(
        "List federations, show one, make one, invite sites, start a run, close it.\n"
        "open waits, live; Kernel > Interrupt stops the run, and open --resume goes on."
    ),
    examples=(
        "%ts_federations",
        "%ts_federations icu create --sites north,south",
        "%ts_federations icu invite east",
        "%ts_federations icu",
        "%ts_federations icu open --rounds 20 --strategy fedprox:mu=0.1 --quorum 2 --deadline 600",
        "%ts_federations icu budget --epsilon 8 --delta 1e-5 --unit client",
        "%ts_federations icu close",
    ),
)
def federations(line: Line) -> VerbCall:
    """``%ts_federations``."""
    given = dict(line.given)
    words = tuple(given.pop(word) for word in ("name", "action") if word in given)
    return VerbCall("federations", (*words, *given.pop("names", ())), given)


def register_shown(shell: Any) -> None:
    """Show a site's part, or a run that was opened, live unless its cell shows it already; and
    tokens until the next cell."""
    formatter = shell.display_formatter.ipython_display_formatter
    for module, name in _SHOWN:
        formatter.for_type_by_name(module, name, _show)


def unregister_shown(shell: Any) -> None:
    """Take it away again; fine when it is not there."""
    for module, name in _SHOWN:
        shell.display_formatter.ipython_display_formatter.pop(f"{module}.{name}", None)


def _show(found: Any) -> None:
    import_module("truststram_lab.verbs.site_view").show(found)
