"""Every command calls its verb with what the line says, and nothing else."""

from __future__ import annotations

import pytest

from truststram_lab.exceptions import (
    AuthenticationError,
    ConfigurationError,
    InvalidInputError,
    NotFoundError,
    TrustStramException,
    UsageError,
)
from truststram_lab.magics import COMMANDS

LINES = {
    "%ts_models icu delete --yes": ("models", ("icu", "delete"), {"yes": True}),
    "%ts_deployments icu delete --environment trial --yes": (
        "deployments",
        ("icu", "delete"),
        {"environment": "trial", "yes": True},
    ),
    "%ts_explain icu:3 --rows 0:20 --method lime --class died": (
        "explain",
        ("icu:3",),
        {"rows": "0:20", "method": "lime", "explain_class": "died"},
    ),
    "%ts_explain icu --compare": ("explain", ("icu",), {"compare": True}),
    "%ts_deploy icu@champion --min-instances 2 --max-instances 4": (
        "deploy",
        ("icu@champion",),
        {"min_instances": 2, "max_instances": 4},
    ),
    "%ts_deployments": ("deployments", (), {}),
    "%ts_deployments icu watch": ("deployments", ("icu", "watch"), {}),
    "%ts": ("where", (), {}),
    "%ts doctor": ("doctor", (), {}),
    "%ts_login --sandbox": ("login", (), {"sandbox": True}),
    "%ts_login --url http://127.0.0.1:8080": ("login", (), {"url": "http://127.0.0.1:8080"}),
    "%ts_logout": ("logout", (), {}),
    "%ts_sandbox": ("sandbox", (), {}),
    "%ts_sandbox reset --yes": ("sandbox", ("reset",), {"yes": True}),
    "%ts_federate breast-cancer": ("federate", ("breast-cancer",), {}),
    "%ts_federate --clients 8 breast-cancer --rounds=3 --split dirichlet:0.1 --seed 7": (
        "federate",
        ("breast-cancer",),
        {"clients": 8, "rounds": 3, "split": "dirichlet:0.1", "seed": 7},
    ),
    "%ts_federate breast-cancer --epochs 3 --batch-size 8 --lr 1e-2 --background "
    "--allow-one-class --positive benign --as tumours": (
        "federate",
        ("breast-cancer",),
        {
            "epochs": 3,
            "batch_size": 8,
            "learning_rate": 0.01,
            "background": True,
            "allow_one_class": True,
            "positive": "benign",
            "name": "tumours",
        },
    ),
    "%ts_federate breast-cancer --strategy fedyogi:tau=0.01 --filter gradient_clip:max_norm=1.0 "
    "--filter quantization:bits=8": (
        "federate",
        ("breast-cancer",),
        {
            "strategy": "fedyogi:tau=0.01",
            "filters": ["gradient_clip:max_norm=1.0", "quantization:bits=8"],
        },
    ),
    "%ts_federate breast-cancer --dp 3 --delta 1e-5 --clip 0.5 --dp-unit client --dp-limit 8": (
        "federate",
        ("breast-cancer",),
        {"dp": 3.0, "delta": 1e-5, "clip": 0.5, "dp_unit": "client", "dp_limit": 8.0},
    ),
    "%ts_runs icu-3 sent": ("runs", ("icu-3", "sent"), {}),
    "%ts_runs icu-3 replay --round 3": ("runs", ("icu-3", "replay"), {"number": 3}),
    "%ts_federate digits --sweep lr=0.1,0.2 --sweep strategy=fedavg|scaffold --seeds 3": (
        "sweep",
        ("digits", ["lr=0.1,0.2", "strategy=fedavg|scaffold"]),
        {"seeds": 3},
    ),
    "%ts_federate digits --clients 50 --dry-run": (
        "federate",
        ("digits",),
        {"clients": 50, "dry_run": True},
    ),
    "%ts_runs icu-3 contribution": ("runs", ("icu-3", "contribution"), {}),
    "%ts_runs icu-3 contribution --drop 'ward 1' --drop icu": (
        "runs",
        ("icu-3", "contribution"),
        {"drop": ["ward 1", "icu"]},
    ),
    "%ts_runs icu-3 contribution --pairs 20 --tolerance 0.05 --seed 4": (
        "runs",
        ("icu-3", "contribution"),
        {"pairs": 20, "tolerance": 0.05, "seed": 4},
    ),
    "%ts_runs compare icu-3 icu-4 icu-5": ("runs", ("compare", "icu-3", "icu-4", "icu-5"), {}),
    "%ts_runs": ("runs", (), {}),
    "%ts_runs icu-3": ("runs", ("icu-3",), {}),
    "%ts_runs icu-3 stop": ("runs", ("icu-3", "stop"), {}),
    "%ts_models": ("models", (), {}),
    "%ts_models icu": ("models", ("icu",), {}),
    "%ts_models icu@champion": ("models", ("icu@champion",), {}),
    "%ts_models icu alias champion": ("models", ("icu", "alias", "champion"), {}),
    "%ts_models icu alias champion --version 2": (
        "models",
        ("icu", "alias", "champion"),
        {"version": 2},
    ),
    "%ts_models --version deployed icu alias champion": (
        "models",
        ("icu", "alias", "champion"),
        {"version": "deployed"},
    ),
    "%ts_models icu unalias champion": ("models", ("icu", "unalias", "champion"), {}),
    "%ts_predict icu@champion --example": ("predict", ("icu@champion",), {"example": True}),
    "%ts_predict icu --example --explain": (
        "predict",
        ("icu",),
        {"example": True, "explain": True},
    ),
    "%ts_predict icu:2 row --class died": (
        "predict",
        ("icu:2", {"mean radius": 1.0, "ward": "a"}),
        {"explain_class": "died"},
    ),
    '%%ts_predict icu --explain\n{"mean radius": 1.5,\n "ward": null}\n': (
        "predict",
        ("icu", {"mean radius": 1.5, "ward": None}),
        {"explain": True},
    ),
    '%%ts_predict icu\n[{"ward": "{row}"}, {"ward": "$row"}]': (
        "predict",
        ("icu", [{"ward": "{row}"}, {"ward": "$row"}]),
        {},
    ),
}


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
    first, newline, rest = line.partition("\n")
    assert session.run(f"{first} --as-python{newline}{rest}") is None
    getattr(session.verbs, verb).assert_not_called()
    session.run(capsys.readouterr().out)
    getattr(session.verbs, verb).assert_called_once_with(*args, **kwargs)


def test_a_dataframe_is_passed_itself_with_its_name(session):
    session.run("%ts_federate df --target died --by ward")
    (data,), given = session.verbs.federate.call_args
    assert data is session.variables["df"]
    assert given == {"target": "died", "by": "ward", "label": "df"}


def test_a_variable_is_written_by_its_name(session, capsys):
    session.run("%ts_federate df --target 'mean radius' -o run --as Python")
    assert "run = verbs.federate(df, target='mean radius', label='df')" in capsys.readouterr().out


def test_column_names_with_spaces_go_in_quotes(session):
    session.run("%ts_federate df --target 'mean radius'")
    assert session.verbs.federate.call_args.kwargs["target"] == "mean radius"


def test_a_dataframe_of_a_function_is_found(session):
    session.run("def go(patients):\n    %ts_federate patients --target died\ngo(df)")
    assert session.verbs.federate.call_args.args[0] is session.variables["df"]


def test_variables_in_braces_are_filled_in(session):
    session.run("for n in (3, 4):\n    %ts_federate breast-cancer --clients {n}")
    assert [c.kwargs["clients"] for c in session.verbs.federate.call_args_list] == [3, 4]


def test_o_stores_the_result_and_an_assignment_takes_it(session):
    assert session.run("%ts_models -o found") == "<models>"
    session.run("other = %ts_models icu")
    assert session.variables["found"] == session.variables["other"] == "<models>"


def test_a_semicolon_is_no_part_of_the_line(session):
    session.run("found = %ts_models icu;")
    session.verbs.models.assert_called_once_with("icu")
    assert session.variables["found"] == "<models>"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_examples_that_parse(session, name, capsys):
    command = COMMANDS[name]
    for ask in ("--help", "?"):
        assert session.run(f"%{name} {ask}") is None
        text = capsys.readouterr().out
        assert "Examples:" in text
        assert all(flag in text for flag in command.parser.flags)
    assert session.shell.find_line_magic(name).__doc__ == command.parser.format_help()
    for line in command.parser.epilog.splitlines()[1:]:
        _, percent, words = line.strip().partition(f"%{name}")
        if percent:
            command.parser.parse_line(words)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "%ts_federate breast-cancer --client 5",
            "--client is not a flag of %ts_federate; did you mean --clients?",
        ),
        ("%ts_federate breast-cancer --clients", "--clients needs a value."),
        (
            "%ts_federate breast-cancer --clients many",
            "--clients takes a whole number, not 'many'.",
        ),
        ("%ts_federate breast-cancer --lr fast", "--lr takes a number, not 'fast'."),
        ("%ts_federate breast-cancer --background=yes", "--background takes no value."),
        ("%ts_federate", "%ts_federate needs DATA."),
        (
            "%ts_federate df --target mean radius",
            "'radius' is one word too many for %ts_federate; put names with spaces in quotes.",
        ),
        (
            "%ts_federate df --target 'mean",
            "A quote is opened and not closed in the line of %ts_federate.",
        ),
        (
            "%ts_runs icu-3 wacth",
            "'wacth' is none of watch, stop, resume, sent, replay, contribution; did you mean "
            "watch?",
        ),
        (
            "%ts_models icu aliased champion",
            "'aliased' is none of alias, unalias, watch, delete; did you mean alias?",
        ),
        ("%ts_models -o 1st", "-o takes a variable's name, not '1st'."),
        ("%ts_models -o class", "-o takes a variable's name, not 'class'."),
    ],
)
def test_a_line_that_does_not_parse_is_one_sentence_and_the_usage(session, line, sentence):
    with pytest.raises(UsageError) as caught:
        session.run(line)
    first, usage = caught.value.message.split("\n", 1)
    assert first == sentence
    name = line.split()[0]
    assert usage.startswith(f"Usage: {name} ")
    assert caught.value._render_traceback_() == [f"UsageError: {caught.value.message}"]


def test_abbreviated_flags_are_not_guessed(session):
    with pytest.raises(UsageError, match="did you mean --background"):
        session.run("%ts_federate breast-cancer --back")
    session.verbs.federate.assert_not_called()


def test_unknown_data_names_the_nearest_demo_or_dataframe(session):
    session.variables["patients"] = session.variables["df"]
    with pytest.raises(NotFoundError, match="did you mean breast-cancer") as caught:
        session.run("%ts_federate brest-cancer")
    assert caught.value.choices == ["breast-cancer"]
    with pytest.raises(NotFoundError, match="did you mean patients"):
        session.run("%ts_federate patient --target died")
    with pytest.raises(NotFoundError, match="your DataFrames: df, patients; demo data: breast-c"):
        session.run("%ts_federate zzz --target died")


def test_a_variable_that_is_no_dataframe_says_what_it_is(session):
    with pytest.raises(InvalidInputError, match=r"'row' is a dict, not a DataFrame"):
        session.run("%ts_federate row --target died")


def test_a_name_that_is_both_demo_and_dataframe_is_not_guessed(session):
    session.variables["digits"] = session.variables["df"]
    with pytest.raises(InvalidInputError, match="a demo data set and a DataFrame of yours"):
        session.run("%ts_federate digits --target died")


def test_an_unknown_variable_to_predict_names_the_nearest(session):
    with pytest.raises(NotFoundError, match="no variable 'rwo' here; did you mean row"):
        session.run("%ts_predict icu rwo")


def test_a_cell_and_a_variable_are_one_too_many(session):
    with pytest.raises(UsageError, match="leave row out"):
        session.run("%%ts_predict icu row\n{}")
    with pytest.raises(UsageError, match="leave --example out"):
        session.run("%%ts_predict icu --example\n{}")


def test_errors_of_verbs_pass_unchanged(session):
    error = TrustStramException("The platform is on fire.")
    session.verbs.models.side_effect = error
    with pytest.raises(TrustStramException) as caught:
        session.run("%ts_models")
    assert caught.value is error
    session.verbs.models.side_effect = ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        session.run("%ts_models")


def test_an_interrupt_stays_one_and_is_one_line(session):
    session.verbs.models.side_effect = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt) as caught:
        COMMANDS["ts_models"].run(session.shell, "", None, None)
    shown = caught.value._render_traceback_()
    assert shown == ["KeyboardInterrupt: %ts_models was interrupted."]


@pytest.mark.parametrize(
    "words",
    ["--api-key SECRET", "--api-key=SECRET", "--token SECRET", "SECRET", "-SECRET", "--SECRET",
     "--url u SECRET", "--sandbox=SECRET"],
)  # fmt: skip
def test_a_key_on_the_line_is_refused_and_not_repeated(session, words):
    with pytest.raises(UsageError) as caught:
        session.run(f"%ts_login {words}")
    assert "SECRET" not in caught.value.message
    session.verbs.login.assert_not_called()


def test_a_variable_is_not_filled_in_where_it_may_be_a_key(session):
    session.variables["key"] = "SECRET"
    with pytest.raises(UsageError) as caught:
        session.run("%ts_login {key}")
    assert "SECRET" not in caught.value.message


class TestSigningInWithAPrompt:
    LINE = "%ts_login --url http://127.0.0.1:8080"

    @pytest.fixture(autouse=True)
    def asked(self, session, monkeypatch):
        self.prompts: list[str] = []
        self.answer = "SECRET"

        def prompt(text: str) -> str:
            self.prompts.append(text)
            return self.answer

        monkeypatch.setattr("getpass.getpass", prompt)
        monkeypatch.setattr("sys.stdin", mock_terminal())
        session.verbs.login.side_effect = lambda **given: (
            "signed in" if given.get("api_key") == "SECRET" else refuse(ConfigurationError)
        )

    def test_the_key_is_asked_for_when_there_is_none(self, session):
        assert session.run(self.LINE) == "signed in"
        assert len(self.prompts) == 1

    def test_an_expired_stored_key_is_asked_for_again(self, session):
        session.verbs.login.side_effect = [AuthenticationError("Expired."), "signed in"]
        assert session.run(self.LINE) == "signed in"

    def test_no_answer_gives_the_verbs_own_sentence(self, session):
        self.answer = ""
        with pytest.raises(ConfigurationError, match="No key"):
            session.run(self.LINE)

    def test_nobody_is_asked_for_the_sandbox_or_when_a_key_is_set(self, session, monkeypatch):
        with pytest.raises(ConfigurationError):
            session.run("%ts_login --sandbox")
        monkeypatch.setenv("TRUSTSTRAM_API_KEY", "other")
        with pytest.raises(ConfigurationError):
            session.run(self.LINE)
        assert self.prompts == []

    def test_nobody_is_asked_where_nobody_can_answer(self, session, monkeypatch):
        monkeypatch.setattr("sys.stdin", None)
        monkeypatch.delitem(__import__("sys").modules, "ipykernel", raising=False)
        with pytest.raises(ConfigurationError):
            session.run(self.LINE)
        assert self.prompts == []


def mock_terminal():
    from unittest.mock import Mock

    return Mock(isatty=lambda: True)


def refuse(kind):
    raise kind("No key.")


def test_registering_again_changes_nothing_and_unregistering_takes_all_away(session):
    from truststram_lab import load_ipython_extension, unload_ipython_extension

    shell = session.shell
    before = len(shell.Completer.custom_matchers)
    load_ipython_extension(shell)
    assert len(shell.Completer.custom_matchers) == before
    unload_ipython_extension(shell)
    unload_ipython_extension(shell)
    assert len(shell.Completer.custom_matchers) == before - 1
    assert shell.find_line_magic("ts_models") is None
    assert shell.find_cell_magic("ts_predict") is None
    load_ipython_extension(shell)
