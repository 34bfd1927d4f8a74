"""Simulate a federation, and manage runs."""

from __future__ import annotations

from argparse import ArgumentTypeError
from importlib import import_module

from . import completers
from .command import Line, VerbCall, command
from .namespace import Variable
from .parsing import argument, one_of, real_number, whole_number

__all__ = ["federate", "runs"]

_RUN_ACTIONS = ("watch", "stop", "resume", "sent", "replay", "contribution")
#: Flags of one action each; any other refuses them.
_FLAGS_OF = {
    "number": ("--round", "replay"),
    "drop": ("--drop", "contribution"),
    "pairs": ("--pairs", "contribution"),
    "tolerance": ("--tolerance", "contribution"),
    "seed": ("--seed", "contribution"),
}


@command(
    "ts_federate",
    argument(
        "data",
        metavar="DATA",
        complete=completers.data_sets_and_frames,
        help="a demo data set, or a DataFrame of yours",
    ),
    argument(
        "--clients",
        metavar="N",
        type=whole_number,
        help="sites; 5 when left out, more than 20 are virtual",
    ),
    argument("--rounds", metavar="N", type=whole_number, help="training rounds; 10 when left out"),
    argument(
        "--target",
        metavar="COL",
        complete=completers.columns_of_data,
        help="the column to predict; needed for a DataFrame",
    ),
    argument(
        "--as",
        dest="name",
        metavar="NAME",
        complete=completers.models,
        help="the model's name; the data's when left out",
    ),
    argument(
        "--split",
        metavar="KIND:X",
        complete=completers.words(
            "dirichlet:0.1", "dirichlet:0.5", "dirichlet:100", "iid", "shards:2", "quantity:0.5"
        ),
        help="how sites differ: dirichlet:A in their labels (small A, much; 0.5 when left out), "
        "shards:N, quantity:A in their size, or iid",
    ),
    argument(
        "--by",
        metavar="COL",
        complete=completers.columns_of_data,
        help="deal the rows by this column's values, instead",
    ),
    argument(
        "--positive",
        metavar="LABEL",
        complete=completers.labels_of_target,
        help="the class that is looked for, where there are two",
    ),
    argument("--epochs", metavar="N", type=whole_number, help="passes over a site's rows a round"),
    argument("--batch-size", metavar="N", type=whole_number, help="rows a step"),
    argument("--lr", dest="learning_rate", metavar="X", type=real_number, help="learning rate"),
    argument(
        "--strategy",
        metavar="NAME[:KEY=X,...]",
        complete=completers.strategies,
        help="how updates become one model, such as fedprox:mu=0.1; fedavg when left out",
    ),
    argument(
        "--filter",
        dest="filters",
        action="append",
        metavar="TYPE[:KEY=X,...]",
        complete=completers.filters,
        help="what is done to an update before it leaves, such as gradient_clip:max_norm=1.0; "
        "may come several times, in order",
    ),
    argument(
        "--dp",
        metavar="EPSILON",
        type=real_number,
        help="protect every row: the epsilon that the run may spend, such as 3",
    ),
    argument(
        "--delta",
        metavar="X",
        type=real_number,
        help="of --dp; 1 / (10 x rows of the smallest site) when left out",
    ),
    argument(
        "--clip", metavar="X", type=real_number, help="of --dp: largest norm; 1 when left out"
    ),
    argument(
        "--dp-unit",
        dest="dp_unit",
        metavar="record|client",
        complete=completers.words("record", "client"),
        help="who is hidden by --dp: a row (record, when left out) or a whole site",
    ),
    argument(
        "--dp-limit",
        dest="dp_limit",
        metavar="EPSILON",
        type=real_number,
        help="the most that all runs may ever spend on this data; stays set",
    ),
    argument(
        "--bounds",
        metavar="VAR",
        complete=completers.mappings,
        help="with --dp on a DataFrame: a dict of column and possible range",
    ),
    argument(
        "--fraction",
        metavar="X",
        type=real_number,
        help="share of the clients that each round asks; all when left out",
    ),
    argument("--drop", metavar="X", type=real_number, help="chance of a client to send nothing"),
    argument(
        "--stragglers",
        metavar="X",
        type=real_number,
        help="chance of a client to do part of its epochs",
    ),
    argument(
        "--hostile",
        metavar="X:ATTACK",
        complete=completers.words("0.2:label_flip", "0.2:sign_flip", "0.2:scale=10"),
        help="share of clients that attack, and how, such as 0.2:sign_flip",
    ),
    argument(
        "--personal",
        metavar="KIND[:KEY=X]",
        complete=completers.words("ditto", "ditto:lambda=0.1", "fedper:head=layers.1"),
        help="give each client a model of its own, too: ditto:lambda=0.1 or fedper:head=LAYER",
    ),
    argument(
        "--sweep",
        dest="over",
        action="append",
        metavar="PARAM=A,B,...",
        complete=completers.words(
            "lr=0.01,0.1", "epochs=1,2,4", "clients=5,10", "strategy=fedavg|fedprox:mu=0.1"
        ),
        help="one run for each value, such as lr=0.01,0.1 or strategy=fedavg|fedprox:mu=0.1; may "
        "come several times, then each value with each",
    ),
    argument("--seeds", metavar="N", type=whole_number, help="of --sweep: runs for each value, 1"),
    argument("--seed", metavar="N", type=whole_number, help="0 when left out"),
    argument("--background", action="store_true", help="give the prompt back at once"),
    argument(
        "--dry-run",
        dest="dry_run",
        action="store_true",
        help="deal the rows and show who has what; train nothing",
    ),
    argument(
        "--allow-one-class",
        action="store_true",
        help="accept sites whose rows all have one class",
    ),
    summary=(
        "Train one model across simulated sites, on this computer, and deploy it.\n"
        "It waits, live; Kernel > Interrupt stops it, and %ts_runs NAME resume goes on."
    ),
    examples=(
        "%ts_federate breast-cancer",
        "%ts_federate breast-cancer --clients 8 --rounds 20 --split dirichlet:0.1",
        "%ts_federate df --target died --by hospital --as icu",
        "%ts_federate digits --clients 50 --split dirichlet:0.1 --dry-run",
        "%ts_federate breast-cancer --dp 3",
        "%ts_federate breast-cancer --sweep lr=0.03,0.1,0.3 --seeds 3",
        "%ts_federate digits --clients 1000 --rounds 50 --strategy scaffold --split dirichlet:0.3",
        "%ts_federate digits --strategy fedadam --filter sparsification:top_k=0.1",
        "run = %ts_federate df --target 'discharge state' --background",
    ),
)
def federate(line: Line) -> VerbCall:
    """``%ts_federate``."""
    given = dict(line.given)
    # The verbs know the demo data sets; loading them here costs what the call costs anyway.
    demos = import_module("truststram_lab.verbs").completion_names("datasets")
    data = line.scope.data(given.pop("data"), demos)
    if isinstance(data, Variable):
        given["label"] = data.name
    if "bounds" in given:
        given["bounds"] = line.scope.variable(given["bounds"])
    if "over" in given:
        return VerbCall("sweep", (data, given.pop("over")), given)
    if "seeds" in given:
        raise federate.parser.mistake(
            "--seeds goes with --sweep only: --sweep lr=0.01,0.1 --seeds 3."
        )
    return VerbCall("federate", (data,), given)


@command(
    "ts_runs",
    argument(
        "name",
        metavar="NAME",
        nargs="?",
        complete=completers.runs_or("compare"),
        help="show this run; compare shows the runs named after it side by side",
    ),
    argument(
        "action",
        metavar="watch|stop|resume|sent|replay|contribution",
        nargs="?",
        complete=completers.after("compare", completers.runs, completers.words(*_RUN_ACTIONS)),
        help="follow it live, stop it, go on where it was stopped, see every byte that left, "
        "compute its rounds again, or see what each site brought",
    ),
    argument(
        "others",
        metavar="RUN",
        nargs="*",
        complete=completers.after("compare", completers.runs, completers.words()),
        help="more runs to compare",
    ),
    argument(
        "--data",
        metavar="VAR",
        complete=completers.frames,
        help="the DataFrame, to resume a run of a kernel that is gone; or rows that score "
        "contributions",
    ),
    argument(
        "--round",
        dest="number",
        metavar="N",
        type=whole_number,
        help="the only round to replay; all when left out",
    ),
    argument(
        "--drop",
        metavar="SITE",
        action="append",
        help="contribution: show the model without this site's updates; again for more sites",
    ),
    argument(
        "--pairs",
        metavar="N",
        type=whole_number,
        help="contribution of more than ten sites: orders to walk there and back (100)",
    ),
    argument(
        "--tolerance",
        metavar="SHARE",
        type=real_number,
        help="contribution of more than ten sites: a walk stops where so little is left (0.01)",
    ),
    argument(
        "--seed",
        metavar="N",
        type=whole_number,
        help="contribution of more than ten sites: of the orders (0)",
    ),
    summary=(
        "List runs, show one, watch, stop or resume it, see every byte that left, compute its\n"
        "rounds again from the stored updates, or see what each site brought; or compare several."
    ),
    examples=(
        "%ts_runs",
        "%ts_runs breast-cancer-1",
        "%ts_runs breast-cancer-1 resume",
        "%ts_runs breast-cancer-1 sent",
        "%ts_runs breast-cancer-1 replay --round 3",
        "%ts_runs icu-3 resume --data df",
        "%ts_runs breast-cancer-1 contribution",
        "%ts_runs breast-cancer-1 contribution --drop 'site 3'",
        "%ts_runs compare breast-cancer-1 breast-cancer-2",
    ),
)
def runs(line: Line) -> VerbCall:
    """``%ts_runs``."""
    given = dict(line.given)
    words = tuple(given.pop(word) for word in ("name", "action") if word in given)
    words += tuple(given.pop("others", ()))
    if words[:1] != ("compare",):
        _check_action(words)
    for name, (flag, action) in _FLAGS_OF.items():
        if name in given and words[1:2] != (action,):
            raise runs.parser.mistake(
                f"{flag} goes with {action} only: %ts_runs NAME {action} {flag} ..."
            )
    if "data" in given:
        given["data"] = line.scope.variable(given["data"])
    return VerbCall("runs", words, given)


def _check_action(words: tuple[str, ...]) -> None:
    parser = runs.parser
    if len(words) > 2:
        raise parser.mistake(
            f"{words[2]!r} is one word too many for {parser.magic}; put names with spaces in "
            "quotes."
        )
    try:
        for word in words[1:]:
            one_of(*_RUN_ACTIONS)(word)
    except ArgumentTypeError as error:
        raise parser.mistake(str(error)) from None
