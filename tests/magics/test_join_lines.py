"""The lines about federations and joining: what they call, what a cell's function is, Tab."""

from __future__ import annotations

import pytest

from truststram_lab.exceptions import InvalidInputError, NotFoundError, UsageError

LINES = {
    "%ts_federations": ("federations", (), {}),
    "%ts_federations icu": ("federations", ("icu",), {}),
    "%ts_federations icu create --sites north,south": (
        "federations",
        ("icu", "create"),
        {"sites": ["north", "south"]},
    ),
    "%ts_federations icu invite east 'west wing'": (
        "federations",
        ("icu", "invite", "east", "west wing"),
        {},
    ),
    "%ts_federations icu open --rounds 20 --strategy fedprox:mu=0.1 --quorum 2 --deadline 600": (
        "federations",
        ("icu", "open"),
        {"rounds": 20, "strategy": "fedprox:mu=0.1", "quorum": 2, "deadline": 600.0},
    ),
    "%ts_federations icu open --filter gradient_clip:max_norm=1.0 --dp 3 --dp-unit client "
    "--as mortality --background": (
        "federations",
        ("icu", "open"),
        {
            "filters": ["gradient_clip:max_norm=1.0"],
            "dp": 3.0,
            "dp_unit": "client",
            "model": "mortality",
            "background": True,
        },
    ),
    "%ts_federations icu open --resume": ("federations", ("icu", "open"), {"resume": True}),
    "%ts_federations icu open --wait": ("federations", ("icu", "open"), {"wait": True}),
    "%ts_federations icu budget --epsilon 8 --delta 1e-5 --unit client": (
        "federations",
        ("icu", "budget"),
        {"epsilon": 8.0, "delta": 1e-5, "unit": "client"},
    ),
    "%ts_federations icu close": ("federations", ("icu", "close"), {}),
    "%ts_join icu --data breast-cancer --dry-run": (
        "join",
        ("icu", "breast-cancer"),
        {"dry_run": True},
    ),
    "%ts_join icu --data digits --personal ditto:lambda=0.5": (
        "join",
        ("icu", "digits"),
        {"personal": "ditto:lambda=0.5"},
    ),
    "%ts_join icu --data digits --as north --rounds-of icu-3 --background": (
        "join",
        ("icu", "digits"),
        {"site": "north", "rounds_of": "icu-3", "background": True},
    ),
    "%ts_join icu --data digits --filter gradient_clip:max_norm=1 "
    "--filter gaussian_noise:sigma=0.1": (
        "join",
        ("icu", "digits"),
        {"filters": ["gradient_clip:max_norm=1", "gaussian_noise:sigma=0.1"]},
    ),
    "%ts_join icu --data digits --max-clip 1 --min-noise 0.1 --max-epsilon 3 --max-rounds 20 "
    "--allow-strategy fedavg,median --allow-model icu --no-statistics": (
        "join",
        ("icu", "digits"),
        {
            "max_clip": 1.0,
            "min_noise": 0.1,
            "max_epsilon": 3.0,
            "max_rounds": 20,
            "allow_strategy": ["fedavg", "median"],
            "allow_model": ["icu"],
            "no_statistics": True,
        },
    ),
    "%ts_join icu --data digits --token-env WARD_TOKEN --export site.py": (
        "join",
        ("icu", "digits"),
        {"token_env": "WARD_TOKEN", "export": "site.py"},
    ),
}

CELL = "%%ts_join icu --data df --target died\n\nimport math\n\ndef train(state):\n    return state"


@pytest.mark.parametrize("line", LINES)
def test_a_line_calls_its_verb_and_returns_the_result(session, line):
    verb, args, kwargs = LINES[line]
    assert session.run(line) == f"<{verb}>"
    getattr(session.verbs, verb).assert_called_once_with(*args, **kwargs)


@pytest.mark.parametrize("line", LINES)
def test_the_printed_python_makes_the_same_call_and_the_line_itself_makes_none(
    session, line, capsys
):
    verb, args, kwargs = LINES[line]
    assert session.run(f"{line} --as-python") is None
    getattr(session.verbs, verb).assert_not_called()
    session.run(capsys.readouterr().out)
    getattr(session.verbs, verb).assert_called_once_with(*args, **kwargs)


def test_a_dataframe_and_a_function_are_passed_themselves(session):
    session.run("def fit(parameters, config): return parameters, 1, {}")
    session.run("%ts_join icu --data df --target died --train fit")
    args, given = session.verbs.join.call_args
    assert args[0] == "icu"
    assert args[1] is session.variables["df"]
    assert given == {"target": "died", "train": session.variables["fit"]}


@pytest.mark.parametrize("name", ["train", "fit"])
def test_a_cells_function_is_the_one_of_this_kernel(session, name):
    body = f"factor = 3\ndef {name}(state):\n    return factor"
    session.run(f"%%ts_join icu --data df --target died\n{body}")
    function = session.verbs.join.call_args.kwargs["train"]
    assert function is session.variables[name]
    assert function(None) == 3
    session.run("factor = 4")
    assert function(None) == 4


def test_a_cells_python_is_the_cell_and_the_call(session, capsys):
    session.run(CELL.replace("died", "died --as-python", 1))
    session.verbs.join.assert_not_called()
    assert "train" not in session.variables
    session.run(capsys.readouterr().out)
    assert session.verbs.join.call_args.kwargs["train"] is session.variables["train"]


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("x = 1", r"this one defines x; begin with: def train\(state\)"),
        ("\n# nothing yet", "this one defines none"),
        ("def trian(state): ...", "call 'trian' train"),
        ("def train(state)\n    return 1", "no Python at its line 2"),
    ],
)
def test_a_cell_without_a_training_function_is_refused_before_it_runs(session, cell, says):
    with pytest.raises(InvalidInputError, match=says):
        session.run(f"%%ts_join icu --data df --target died\n{cell}")
    session.verbs.join.assert_not_called()
    assert "x" not in session.variables


def test_a_function_that_is_not_there_is_named_with_the_nearest(session):
    session.run("def fit(parameters, config): ...")
    with pytest.raises(NotFoundError, match="no function 'fti' here; did you mean fit"):
        session.run("%ts_join icu --data df --target died --train fti")
    with pytest.raises(InvalidInputError, match="'row' is a dict, not a function"):
        session.run("%ts_join icu --data df --target died --train row")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("%ts_join icu", "--data"),
        ("%ts_federations icu opne", "did you mean open"),
        ("%ts_federations icu open --rounds many", "takes a whole number"),
        ("%ts_federations icu budget --unit site", "'site' is none of record, client"),
        ("%ts_join icu --data df --dryrun", "did you mean --dry-run"),
    ],
)
def test_a_line_that_does_not_parse_says_why(session, line, says):
    with pytest.raises(UsageError, match=says):
        session.run(line)
    session.verbs.join.assert_not_called()
    session.verbs.federations.assert_not_called()


@pytest.fixture
def named(session):
    names = {
        "federations": ["icu", "ward study"],
        "sites": ["icu/north", "icu/south", "ward study/a"],
        "runs": ["icu-3"],
        "models": ["icu"],
        "datasets": ["breast-cancer", "digits"],
    }
    session.verbs.completion_names.side_effect = names.__getitem__
    return session


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("%ts_join ic", "%ts_join icu"),
        ("%ts_join wa", "%ts_join 'ward study'"),
        ("%ts_join icu --data d", "%ts_join icu --data df"),
        ("%ts_join icu --data df --target d", "%ts_join icu --data df --target died"),
        ("%ts_join icu --as n", "%ts_join icu --as north"),
        ("%ts_join icu --dr", "%ts_join icu --dry-run"),
        ("%ts_join icu --rounds-of i", "%ts_join icu --rounds-of icu-3"),
        ("%%ts_join icu --allow-strategy med", "%%ts_join icu --allow-strategy median"),
        ("%ts_federations icu in", "%ts_federations icu invite"),
        ("%ts_federations icu invite s", "%ts_federations icu invite south"),
        ("%ts_federations icu open --strategy fedp", "%ts_federations icu open --strategy fedprox"),
    ],
)
def test_tab_offers_what_can_stand_there(named, typed, offered):
    assert offered in named.complete(typed)


def test_tab_offers_the_users_functions(named):
    named.run("def fit_here(parameters, config): ...")
    found = named.complete("%ts_join icu --data df --train fit")
    assert found == ["%ts_join icu --data df --train fit_here"]


def test_a_line_explains_itself(session, capsys):
    for line, word in (("%ts_join", "--dry-run"), ("%ts_federations", "invite")):
        session.run(f"{line} --help")
        assert word in capsys.readouterr().out
