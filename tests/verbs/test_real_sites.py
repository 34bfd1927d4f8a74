"""A real federation: three sites with tables of their own on a real platform."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest
from ward_tables import table

import truststram_lab
from truststram_lab import verbs
from truststram_lab.exceptions import (
    AuthenticationError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    PrivacyBudgetError,
    RunNotFoundError,
    RunStoppedError,
    UpdateRejectedError,
)
from truststram_lab.federated.participation import Outbox, outbox_folder
from truststram_lab.verbs import session as sessions

WAIT_S = 120.0


def join(federation: str, site: str, frame: pd.DataFrame, **given):
    given = {"target": "ill", "site": site, "background": True, **given}
    return verbs.join(federation, frame, **given)


@pytest.fixture
def federation(shared_session, request):
    """A federation of three, each with a name of its own."""
    name = f"f{abs(hash(request.node.name)) % 10**8}"
    verbs.federations(name, "create", sites=["a", "b", "c"])
    return name


def joined_three(federation: str, ending: list, **given) -> list:
    sites = [join(federation, site, table(n), **given) for n, site in enumerate("abc")]
    ending += sites
    return sites


def test_three_sites_train_one_model_and_each_ends_by_itself(federation, ending):
    sites = joined_three(federation, ending)
    assert verbs.federations(federation).preflight.ready
    run = verbs.federations(federation, "open", rounds=3, positive="yes")
    assert run.status == "completed"
    for site in sites:
        site.wait(timeout_s=WAIT_S)
        view = site.snapshot()
        assert view.status == "done"
        # Aggregates, then an update and a score of every round.
        assert view.updates_sent == 1 + 3 + 3
        assert [entry.number for entry in view.scores] == [1, 2, 3]
        assert view.scores[-1].score.rows == view.held_out_rows == 20
        assert view.sent_bytes > 0
    history = run.snapshot().report.history
    rows = [site.snapshot().scores[-1].score for site in sites]
    mean = sum(score.accuracy * score.rows for score in rows) / sum(score.rows for score in rows)
    assert history[-1].accuracy == pytest.approx(mean)
    assert history[-1].rows == 60
    assert verbs.predict(federation, {"dose": 16.0, "age": 60.0, "ward": "icu"}).label in (
        "yes",
        "no",
    )


def test_a_site_that_names_a_run_leaves_others_alone(federation, ending):
    ending += [join(federation, site, table(n)) for n, site in enumerate("bc")]
    first = join(federation, "a", table(0))
    ending.append(first)
    run = verbs.federations(federation, "open", rounds=1)
    first.wait(timeout_s=WAIT_S)
    # The run it names is over, so there is nothing to take part in.
    named = join(federation, "a", table(0), rounds_of=run.name)
    ending += [named, *(join(federation, site, table(n)) for n, site in enumerate("bc"))]
    other = verbs.federations(federation, "open", rounds=1, quorum=2, deadline=4.0, background=True)
    other.wait(timeout_s=WAIT_S)
    assert named.snapshot().updates_sent == 0


def test_a_site_with_a_function_of_its_own_trains_beside_the_others(federation, ending):
    seen = []

    def fit(parameters, config, x, y):
        seen.append((x.shape, y.shape, config["epochs"]))
        return [array * 0.5 for array in parameters], len(y), {"loss": 0.5}

    mine = join(federation, "a", table(0), train=fit)
    ending += [mine, join(federation, "b", table(1)), join(federation, "c", table(2))]
    verbs.federations(federation, "open", rounds=2, epochs=1)
    mine.wait(timeout_s=WAIT_S)
    # dose, age and the two categories of ward, as the network takes them.
    assert seen == [((60, 4), (60,), 1)] * 2


@pytest.mark.parametrize("strategy", ["fedprox:mu=0.5", "scaffold", "fedadam", "median"])
def test_every_kind_of_strategy_reaches_real_sites(federation, ending, strategy):
    sites = joined_three(federation, ending)
    run = verbs.federations(federation, "open", rounds=2, strategy=strategy)
    assert run.status == "completed"
    assert run.snapshot().plan.strategy.name == strategy.partition(":")[0]
    for site in sites:
        site.wait(timeout_s=WAIT_S)


def test_filters_of_the_plan_shrink_what_every_site_sends(federation, ending):
    joined_three(federation, ending)
    run = verbs.federations(
        federation, "open", rounds=1, filters=["gradient_clip:max_norm=1.0", "quantization:bits=8"]
    )
    assert run.status == "completed"
    assert [found.type for found in run.snapshot().plan.filters] == [
        "gradient_clip",
        "quantization",
    ]


def test_a_run_goes_on_without_a_site_that_does_not_answer_by_the_deadline(federation, ending):
    silent = join(federation, "c", table(2))
    silent.stop()
    ending += [join(federation, "a", table(0)), join(federation, "b", table(1))]
    run = verbs.federations(federation, "open", rounds=1, quorum=2, deadline=3.0, background=True)
    run.wait(timeout_s=WAIT_S)
    assert run.status == "completed"


def test_a_site_that_was_stopped_joins_again_and_goes_on(federation, ending):
    def slow(state):
        time.sleep(0.3)
        return state, 60, {}

    sites = [join(federation, site, table(n), train=slow) for n, site in enumerate("abc")]
    ending += sites
    run = verbs.federations(federation, "open", rounds=4, background=True)
    deadline = time.monotonic() + WAIT_S
    while sites[0].snapshot().number < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    sites[0].stop()
    with pytest.raises(RunStoppedError, match="join again"):
        sites[0].wait(timeout_s=WAIT_S)
    assert not sites[0].active
    again = join(federation, "a", table(0), train=slow)
    ending.append(again)
    run.wait(timeout_s=WAIT_S)
    again.wait(timeout_s=WAIT_S)
    assert run.status == "completed"


def test_a_run_with_too_few_answers_at_the_deadline_stops_and_names_who_is_missing(
    federation, ending
):
    silent = join(federation, "c", table(2))
    silent.stop()
    ending += [join(federation, "a", table(0)), join(federation, "b", table(1))]
    run = verbs.federations(federation, "open", rounds=1, deadline=2.0, background=True)
    with pytest.raises(RunStoppedError, match=r"c.*open --resume"):
        run.wait(timeout_s=WAIT_S)
    assert "c" in run.snapshot().reason
    assert run.snapshot().reason in run.card().text.replace("\n", " ")


def raises(state):
    raise ZeroDivisionError("patient 4711 has no weight")


@pytest.mark.parametrize(
    ("train", "error", "says"),
    [
        (raises, ZeroDivisionError, "4711"),
        (lambda state: state, UpdateRejectedError, "expected the tuple"),
        (lambda state: ({}, 60, {}), UpdateRejectedError, "layers.0"),
        (
            lambda state: ({k: v * float("nan") for k, v in state.items()}, 60, {}),
            UpdateRejectedError,
            "layers.0",
        ),
        (lambda state: (state, 0, {}), UpdateRejectedError, "at least 1"),
    ],
)
def test_a_training_function_that_fails_sends_nothing_and_says_why_here(
    federation, ending, train, error, says
):
    broken = join(federation, "a", table(0), train=train)
    ending += [broken, join(federation, "b", table(1)), join(federation, "c", table(2))]
    run = verbs.federations(federation, "open", rounds=1, background=True)
    with pytest.raises(error, match=says):
        broken.wait(timeout_s=WAIT_S)
    run.stop()
    view = broken.snapshot()
    assert view.status == "failed"
    assert not [e for e in view.events if e.kind == "training" and e.state == "uploading"]
    # What an exception of the site's own says may quote its data: the card does not.
    assert "4711" not in broken.card().text
    assert "a" not in run.snapshot().pushed


def test_the_owner_stops_the_run_for_everybody_and_goes_on(federation, ending):
    def slow(state):
        time.sleep(0.3)
        return state, 60, {}

    sites = joined_three(federation, ending, train=slow)
    run = verbs.federations(federation, "open", rounds=50, background=True)
    deadline = time.monotonic() + WAIT_S
    while sites[0].snapshot().number < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(ConflictError, match="watch"):
        verbs.federations(federation, "open")
    run.stop()
    with pytest.raises(RunStoppedError, match="open --resume"):
        run.wait(timeout_s=WAIT_S)
    for site in sites:
        with pytest.raises(RunStoppedError, match="the run was stopped"):
            site.wait(timeout_s=WAIT_S)
    resumed = verbs.federations(federation, "open", resume=True, background=True)
    ending += [join(federation, site, table(n), train=slow) for n, site in enumerate("abc")]
    assert resumed.name == run.name
    assert resumed.active
    resumed.stop()


def test_an_owner_who_waits_opens_the_run_when_the_last_site_has_joined(federation, ending):
    def join_late() -> None:
        for number, site in enumerate("abc"):
            time.sleep(0.3)
            ending.append(join(federation, site, table(number)))

    thread = threading.Thread(target=join_late)
    thread.start()
    run = verbs.federations(federation, "open", rounds=1, wait=True)
    thread.join()
    assert run.status == "completed"
    assert run.snapshot().plan.sites == ["a", "b", "c"]


# The floor -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("floor", "says"),
    [
        ({"allow_strategy": ["median"]}, "allows median only, and the run uses fedavg"),
        ({"max_rounds": 1}, "at most 1 rounds of a run, and this one has 2"),
        ({"no_statistics": True}, "gives no counts, means or variances"),
        ({"allow_model": ["other"]}, "trains other only"),
        ({"min_noise": 0.1}, "adds noise of at least 0.1"),
        ({"max_clip": 1.0}, "clips updates to 1 or less"),
        ({"max_epsilon": 3.0}, "spends an epsilon of at most 3"),
    ],
)
def test_a_run_below_a_sites_floor_is_declined_with_the_sentence(federation, ending, floor, says):
    careful = join(federation, "a", table(0), **floor)
    ending += [careful, join(federation, "b", table(1)), join(federation, "c", table(2))]
    run = verbs.federations(federation, "open", rounds=2, background=True)
    with pytest.raises(PermissionDeniedError, match=says):
        careful.wait(timeout_s=WAIT_S)
    run.stop()
    kinds = {event.kind for event in careful.snapshot().events if event.state == "completed"}
    assert "training" not in kinds


def test_a_sites_own_filters_are_applied_and_count_for_its_floor(federation, ending):
    own = ["gradient_clip:max_norm=0.5", "gaussian_noise:sigma=0.01"]
    careful = join(federation, "a", table(0), filters=own, max_clip=0.5, min_noise=0.01)
    ending += [careful, join(federation, "b", table(1)), join(federation, "c", table(2))]
    run = verbs.federations(federation, "open", rounds=2)
    view = careful.wait(timeout_s=WAIT_S).snapshot()
    assert run.status == "completed"
    assert {"clipping", "noising"} <= {event.state for event in view.events}
    assert "gradient_clip:max_norm=0.5" in careful.card().text


def test_in_a_terminal_a_site_is_told_in_lines(federation, ending, capsys):
    ending += [join(federation, "b", table(1)), join(federation, "c", table(2))]
    opened = []

    def owner() -> None:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            sites = verbs.federations(federation).preflight.sites
            if all(site.status == "present" for site in sites):
                break
            time.sleep(0.1)
        opened.append(verbs.federations(federation, "open", rounds=2, background=True))

    thread = threading.Thread(target=owner)
    thread.start()
    done = join(federation, "a", table(0), background=False)
    thread.join()
    assert done.status == "done"
    assert opened[0].wait(timeout_s=WAIT_S).status == "completed"
    said = capsys.readouterr().out
    assert f"{federation}/a: takes part; Ctrl-C stops" in said
    for line in (
        "statistics 0  completed",
        "training 2  local_training",
        "evaluation 2  completed",
    ):
        assert line in said
    assert said.rstrip().endswith(done.card().text.rstrip()[-40:])


# What would leave ----------------------------------------------------------------------


def test_a_dry_run_sends_nothing_and_names_all_that_would_leave(federation):
    client = sessions.require("this test").client
    before = client._driver.traffic.sent_bytes  # at the socket
    found = verbs.join(federation, table(0), target="ill", site="a", dry_run=True)
    assert client._driver.traffic.sent_bytes == before
    preview = found.preview
    assert set(preview.registration) == {"device_identifier", "org_id", "platform", "os_version"}
    assert [column.name for column in preview.columns] == ["dose", "age", "ward"]
    text = found.card().text
    for word in ("general, icu", "no, yes", "layers.0.weight", "64 × 4", "mean and variance"):
        assert word in text, word
    assert verbs.federations(federation).preflight.sites[0].status == "invited"


def test_what_a_dry_run_tells_is_what_leaves(federation, ending):
    preview = verbs.join(federation, table(0), target="ill", site="a", dry_run=True).preview
    joined_three(federation, ending)
    run = verbs.federations(federation, "open", rounds=1).snapshot()
    state = {array.name: (tuple(array.shape), array.dtype) for array in preview.update}
    from truststram_lab.learning.network import expected_shapes

    assert {name: shape for name, (shape, _) in state.items()} == expected_shapes(
        run.plan.architecture
    )
    assert {dtype for _, dtype in state.values()} == {run.plan.local.dtype}


# Invitations and tokens ----------------------------------------------------------------


def test_a_token_is_shown_once_and_never_by_a_repr(shared_session):
    found = verbs.federations("tokens", "create", sites=["north", "south"])
    token = found.token("north")
    assert token not in repr(found)
    first, second = found.card(), found.card()
    assert token in first.text
    assert token in first.html
    assert token not in repr(first.data)
    for shown in (second.text, second.html, repr(second.data)):
        assert token not in shown
    assert "%ts_join tokens --data df --target COLUMN --as north" in second.text


def test_a_site_elsewhere_joins_by_the_token_of_its_environment(federation, ending, monkeypatch):
    client = sessions.require("this test").client
    token = client.federations.invite(federation, ["b"])[0].token
    monkeypatch.setenv("WARD_TOKEN", token)
    mine = verbs.join(federation, table(1), target="ill", token_env="WARD_TOKEN", background=True)
    ending.append(mine)
    assert mine.site == "b"
    with pytest.raises(AuthenticationError, match="token is of site 'b', not of 'a'"):
        join(federation, "a", table(0), token_env="WARD_TOKEN")
    with pytest.raises(AuthenticationError, match="did you mean WARD_TOKEN"):
        join(federation, "a", table(0), token_env="WRD_TOKEN")
    monkeypatch.setenv("WARD_TOKEN", "tss_wrong")
    with pytest.raises(AuthenticationError, match="does not know this site's token"):
        join(federation, "a", table(0), token_env="WARD_TOKEN")


def test_two_kernels_are_not_the_same_site(federation):
    # As another kernel of this user holds it.
    with (
        Outbox(outbox_folder("sandbox", federation, "a"), "site 'a'"),
        pytest.raises(ConflictError, match="'a'"),
    ):
        join(federation, "a", table(0))


def test_a_cell_that_is_run_again_takes_its_former_place(federation, ending):
    first = join(federation, "a", table(0))
    again = join(federation, "a", table(0))
    ending += [first, again]
    assert not first.active
    assert again.active
    with pytest.raises(ConflictError, match="join again"):
        first.start()


def test_a_site_signs_in_with_its_token_and_joins_without_naming_itself(federation, ending):
    url = sessions.require("this test").client.base_url
    token = sessions.require("this test").client.federations.invite(federation, ["b"])[0].token
    try:
        verbs.login(url=url, api_key=token)
        mine = verbs.join(federation, table(1), target="ill", background=True)
        ending.append(mine)
        assert mine.site == "b"
        with pytest.raises(PermissionDeniedError):
            verbs.federations()
        mine.stop()
    finally:
        verbs.login(sandbox=True)


def test_client_level_privacy_reaches_real_sites_and_their_cards(federation, ending):
    sites = joined_three(federation, ending)
    run = verbs.federations(federation, "open", rounds=2, dp=8.0, dp_unit="client")
    assert run.status == "completed"
    view = sites[0].wait(timeout_s=WAIT_S).snapshot()
    assert view.budget == pytest.approx(8.0, rel=0.02)
    assert "Client-level differential privacy" in sites[0].card().text
    assert verbs.federations(federation).budget.rounds_consumed == 2


# Budget, closing -----------------------------------------------------------------------


def test_a_budget_is_set_shown_and_refuses_a_run_without_privacy(federation, ending):
    found = verbs.federations(federation, "budget", epsilon=8.0, delta=1e-5, unit="client")
    assert found.budget.epsilon_budget == 8.0
    assert "of 8" in found.card().text
    joined_three(federation, ending)
    with pytest.raises((InvalidInputError, PrivacyBudgetError), match="privacy"):
        verbs.federations(federation, "open", rounds=1)


def test_a_closed_federation_takes_nobody(federation):
    found = verbs.federations(federation, "close")
    assert found.federation.status == "closed"
    with pytest.raises(ConflictError, match="closed"):
        verbs.federations(federation, "invite", "d")
    with pytest.raises(ConflictError, match="closed"):
        join(federation, "a", table(0))


# Bad input -----------------------------------------------------------------------------


def test_names_that_are_nothing_are_answered_with_the_nearest(federation):
    with pytest.raises(NotFoundError, match=federation):
        verbs.federations(federation[:-1])
    with pytest.raises(NotFoundError, match=federation):
        join(federation[:-1], "a", table(0))
    with pytest.raises(NotFoundError, match="'aa' is not invited"):
        join(federation, "aa", table(0))
    with pytest.raises(InvalidInputError, match="Say it with --as; its sites are a, b, c"):
        join(federation, None, table(0))
    with pytest.raises(RunNotFoundError, match="nothing-7"):
        join(federation, "a", table(0), rounds_of="nothing-7")
    with pytest.raises(InvalidInputError, match="did you mean 'open'"):
        verbs.federations(federation, "opne")


def one_class() -> pd.DataFrame:
    frame = table(0)
    return frame[frame["ill"] == "no"]


@pytest.mark.parametrize(
    ("frame", "given", "says"),
    [
        (table(0), {"target": "il"}, "did you mean 'ill'"),
        (table(0), {"target": None}, "Say it with --target; the columns are 'dose'"),
        (one_class(), {}, "All [0-9]+ rows of this site are 'no'"),
        (table(0, 5), {}, "at least 5 are needed"),
        ([1, 2], {}, "A list is no table"),
        (table(0), {"train": 3}, "is a int; pass a function"),
        (table(0), {"train": lambda: 1}, r"called as train\(state\)"),
        (table(0), {"min_noise": 0.0}, "positive number"),
        (table(0), {"allow_strategy": ["fedavgg"]}, "fedavg"),
    ],
)
def test_what_cannot_join_is_told_before_anything_is_sent(federation, frame, given, says):
    with pytest.raises(InvalidInputError, match=says):
        join(federation, "a", frame, **given)
    assert verbs.federations(federation).preflight.sites[0].status == "invited"


def test_tables_that_do_not_fit_together_are_told_before_the_first_round(federation, ending):
    with pytest.raises(ConflictError, match="have joined"):
        verbs.federations(federation, "open")
    ending.append(join(federation, "a", table(0)))
    ending.append(join(federation, "b", table(1).rename(columns={"dose": "dosis"})))
    with pytest.raises(ConflictError, match="'dose' of 'a' is missing at 'b'; did it mean 'dosis'"):
        verbs.federations(federation, "open")
    assert "dosis" in verbs.federations(federation).card().text


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"quorum": 9}, "1 of the 9 sites"),
        ({"deadline": -1.0}, "deadline is -1"),
        ({"strategy": "fedavgg"}, "fedavg"),
        ({"positive": "maybe"}, "'maybe' cannot be the positive class"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_what_no_run_can_have_is_told_before_it_opens(federation, ending, given, says):
    ending.append(join(federation, "a", table(0)))
    with pytest.raises((InvalidInputError, ConflictError), match=says):
        verbs.federations(federation, "open", **given)
    assert not verbs.federations(federation).runs


# Unattended ----------------------------------------------------------------------------


def test_an_exported_script_takes_part_by_itself(federation, ending, tmp_path):
    def halve(parameters, config):
        return [array * 0.5 for array in parameters], 60, {"loss": 0.1}

    client = sessions.require("this test").client
    script = tmp_path / "ward.py"
    said = verbs.join(federation, table(2), target="ill", train=halve, max_rounds=5, export=script)
    token = client.federations.invite(federation, ["c"])[0].token
    assert token not in script.read_text()
    assert "ward.csv" in said.text
    table(2).to_csv(tmp_path / "ward.csv", index=False)
    ending += [join(federation, "a", table(0)), join(federation, "b", table(1))]
    env = {**os.environ, "TRUSTSTRAM_FL_TOKEN": token, "PYTHONPATH": str(_root())}
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )
    try:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline and process.poll() is None:
            if all(
                site.status != "invited" for site in verbs.federations(federation).preflight.sites
            ):
                break
            time.sleep(0.1)
        run = verbs.federations(federation, "open", rounds=2, background=True)
        run.wait(timeout_s=WAIT_S)
        process.terminate()
        out, _ = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    assert run.status == "completed", out
    assert "training 2  completed" in out


def test_an_exported_script_says_what_it_lacks(federation, tmp_path):
    script = tmp_path / "ward.py"
    verbs.join(federation, table(2), target="ill", export=script)
    env = {**os.environ, "PYTHONPATH": str(_root())}
    table(2).to_csv(tmp_path / "ward.csv", index=False)
    done = subprocess.run(
        [sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Set TRUSTSTRAM_FL_TOKEN to the token")
    with pytest.raises(InvalidInputError, match="no place for a script"):
        verbs.join(federation, table(2), target="ill", export=tmp_path / "gone" / "site.py")


def _root() -> str:
    from pathlib import Path

    return str(Path(truststram_lab.__file__).parents[1])
