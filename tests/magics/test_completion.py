"""Tab offers what can stand at the cursor, from the parser that will read the line."""

from __future__ import annotations

import time

import pytest


def test_flags_are_offered_and_what_is_given_is_not_offered_again(session):
    assert session.complete("%ts_federate breast-cancer --cli") == [
        "%ts_federate breast-cancer --clients",
        "%ts_federate breast-cancer --clip",
    ]
    offered = session.complete("%ts_federate breast-cancer --clients 5 --cl")
    assert "%ts_federate breast-cancer --clients 5 --clients" not in offered


@pytest.mark.parametrize("start", ["", "x = ", "    ", "run.card, y = "])
def test_data_sets_and_dataframes_are_offered_also_after_an_assignment(session, start):
    offered = session.complete(f"{start}%ts_federate ")
    assert offered[:3] == [
        f"{start}%ts_federate {name}" for name in ("df", "breast-cancer", "digits")
    ]
    assert f"{start}%ts_federate --clients" in offered


@pytest.mark.parametrize("flag", ["--target", "--by"])
def test_columns_of_the_named_dataframe_are_offered_quoted_where_needed(session, flag):
    line = f"%ts_federate df {flag} "
    assert session.complete(line) == [line + c for c in ("'mean radius'", "ward", "died")]
    assert session.complete(line + "mean") == [line + "'mean radius'"]
    assert session.complete(line + "'mean r") == [line + "'mean radius'"]
    assert session.complete(line + '"mean r') == [line + '"mean radius"']
    assert session.complete(f"%ts_federate df {flag}=w") == [f"%ts_federate df {flag}=ward"]


def test_a_completed_column_is_read_back_as_that_column(session):
    (line,) = session.complete("%ts_federate df --target 'mean r")
    session.run(line)
    assert session.verbs.federate.call_args.kwargs["target"] == "mean radius"


def test_labels_of_the_target_are_offered_for_positive(session):
    line = "%ts_federate df --target died --positive "
    assert session.complete(line) == [line + "0", line + "1"]


def test_models_and_rows_are_offered_for_a_prediction(session):
    assert session.complete("%ts_predict ic") == ["%ts_predict icu"]
    assert session.complete("%%ts_predict ic") == ["%%ts_predict icu"]
    assert session.complete("%ts_predict icu ")[:2] == ["%ts_predict icu df", "%ts_predict icu row"]


@pytest.mark.parametrize("line", ["%ts_predict ", "%%ts_predict ", "%ts_models "])
def test_aliases_are_offered_after_the_at(session, line):
    assert session.complete(f"{line}ic") == [f"{line}icu"]
    offered = session.complete(f"{line}icu@")
    assert offered == [f"{line}icu@{alias}" for alias in ("champion", "challenger", "latest")]
    assert session.complete(f"{line}icu@champ") == [f"{line}icu@champion"]


def test_actions_of_a_model_then_its_aliases_are_offered(session):
    line = "%ts_models icu "
    assert session.complete(line)[:2] == [line + action for action in ("alias", "unalias")]
    for action in ("alias", "unalias"):
        start = f"{line}{action} "
        assert session.complete(start)[:2] == [start + a for a in ("champion", "challenger")]
    assert session.complete("%ts_models icu:2 unalias cham") == [
        "%ts_models icu:2 unalias champion"
    ]
    assert "%ts_models breast-cancer unalias latest" not in session.complete(
        "%ts_models breast-cancer unalias "
    )


def test_a_new_models_name_is_offered_without_aliases(session):
    offered = session.complete("%ts_federate df --as icu@")
    assert [line for line in offered if "champion" in line] == []
    assert session.complete("%ts_federate df --as ic") == ["%ts_federate df --as icu"]


def test_runs_then_their_actions_are_offered(session):
    assert session.complete("%ts_runs icu") == ["%ts_runs icu-3"]
    assert session.complete("%ts_runs icu-3 ")[:3] == [
        f"%ts_runs icu-3 {action}" for action in ("watch", "stop", "resume")
    ]
    assert session.complete("%ts_runs icu-3 resume --data ") == ["%ts_runs icu-3 resume --data df"]


def test_runs_are_offered_at_every_place_of_a_comparison(session):
    assert session.complete("%ts_runs com") == ["%ts_runs compare"]
    for start in ("%ts_runs compare ", "%ts_runs compare a-1 ", "%ts_runs compare a-1 b-1 c-1 "):
        assert session.complete(start + "icu") == [start + "icu-3"]


def test_a_continued_line_is_completed(session):
    start = "%ts_federate df \\\n   --tar"
    assert session.complete(start) == ["%ts_federate df \\\n   --target"]


def test_the_body_of_a_cell_is_left_to_others(session):
    assert "%%ts_predict icu\n--explain" not in session.complete("%%ts_predict icu\n--ex")


def test_a_variable_of_a_commands_name_is_a_variable(session):
    session.variables["ts_models"] = 1
    assert "ts_models icu" not in session.complete("ts_models i")
    del session.variables["ts_models"]
    assert session.complete("ts_models ic") == ["ts_models icu"]


def test_an_error_while_completing_is_no_ones_business(session, capsys):
    session.verbs.completion_names.side_effect = ZeroDivisionError
    session.complete("%ts_models i")
    session.complete("%ts_federate 'unclosed quote --")
    session.complete("%ts_federate 'a' 'b --target \\")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_typing_does_not_wait_for_a_slow_platform_and_gets_its_names_later(session):
    from truststram_lab.magics.completion import _PlatformNames

    answered = []

    def slow(kind: str) -> list[str]:
        time.sleep(0.5)
        answered.append(kind)
        return ["icu"]

    session.verbs.completion_names.side_effect = slow
    names = _PlatformNames()
    assert names("models") == []
    assert answered == []
    while not answered:
        time.sleep(0.05)
    time.sleep(0.05)
    assert names("models") == ["icu"]
