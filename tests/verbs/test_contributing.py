"""What each site brought, on a real sandbox: from the platform's stored updates."""

from __future__ import annotations

import pytest

from truststram_lab import verbs
from truststram_lab.exceptions import ConflictError, InvalidInputError, RunNotFoundError
from truststram_lab.learning import weights
from truststram_lab.verbs import session as sessions

OPTIONS = {"rounds": 2, "epochs": 1}


@pytest.fixture(scope="module")
def run(shared_session):
    return verbs.federate("breast-cancer", name="brought", clients=4, **OPTIONS)


@pytest.fixture
def another_kernel(run):
    """The session as another kernel has it: it knows no run."""
    mine = sessions.require("testing").runs
    kept = dict(mine)
    mine.clear()
    yield
    mine.update(kept)


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "fedadam:server_learning_rate=0.05"])
def test_with_all_sites_it_is_the_runs_own_model(shared_session, strategy):
    run = verbs.federate("breast-cancer", name="whole", clients=3, strategy=strategy, **OPTIONS)
    found = verbs.contribution(run.name).found
    report = run.snapshot().report
    assert found.everybody.accuracy == report.federated.accuracy
    assert found.everybody.loss == report.history[-1].loss
    assert found.rows == report.federated.rows
    assert (found.method, found.evaluations, found.complete) == ("exact", 8, True)
    gained = found.everybody.accuracy - found.nobody.accuracy
    assert sum(one.accuracy.shapley for one in found.sites) == pytest.approx(gained, abs=1e-9)
    assert [one.rounds for one in found.sites] == [2, 2, 2]


def test_the_card_and_the_table_have_the_same_numbers(run):
    result = verbs.runs(run.name, "contribution")
    frame = result.to_frame()
    text = result.card().text
    for name, line in frame.iterrows():
        assert name in text
        assert f"{line['accuracy_leave_one_out']:+.3f}"[1:] in text
    assert "16 models built and scored" in text
    assert len(result.card().html.encode()) < 50_000


def test_a_dropped_site_is_left_out_of_every_sum_and_nothing_is_registered(run):
    client = sessions.require("testing").client
    before = client.models.get("brought").version_count
    found = verbs.contribution(run.name, drop="site 2")
    everything = verbs.contribution(run.name)
    worth = everything.to_frame().loc["site 2", "accuracy_leave_one_out"]
    assert found.everybody.accuracy - found.without.accuracy == pytest.approx(worth, abs=1e-12)
    assert set(found.state) == set(weights.decode(client.models.download("brought"))[0])
    assert "nobody trained again" in " ".join(found.card().text.split())
    assert client.models.get("brought").version_count == before


def test_another_kernel_deals_a_demo_data_set_again(run, another_kernel):
    assert verbs.contribution(run.name).found.everybody.accuracy == (
        run.snapshot().report.federated.accuracy
    )


def test_another_kernel_asks_for_the_table_of_a_run(shared_session):
    from truststram_lab.preprocessing import load_demo

    frame = load_demo("breast-cancer").frame
    run = verbs.federate(
        frame, target="diagnosis", name="mine", clients=3, label="frame", **OPTIONS
    )
    mine = sessions.require("testing").runs
    del mine[run.name]
    with pytest.raises(InvalidInputError, match="contribution --data frame") as caught:
        verbs.contribution(run.name)
    assert caught.value.field == "data"
    found = verbs.contribution(run.name, data=frame).found
    assert found.everybody.accuracy == run.snapshot().report.federated.accuracy


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"clients": 3, "dp": 5.0}, "differential privacy"),
        ({"clients": 25}, "no updates of single sites"),
    ],
)
def test_what_may_or_can_not_be_taken_apart_is_refused(shared_session, options, says):
    run = verbs.federate("breast-cancer", name="closed", split="iid", **OPTIONS, **options)
    with pytest.raises(ConflictError, match=says):
        verbs.contribution(run.name)
    with pytest.raises(ConflictError, match=says):
        verbs.contribution(run.name, drop="site 1")


def test_a_name_that_is_no_runs_has_the_nearest(run):
    with pytest.raises(RunNotFoundError, match="brought-1"):
        verbs.contribution("brougt-1")


def test_a_site_that_is_none_has_the_nearest(run):
    with pytest.raises(InvalidInputError, match="did you mean 'site 3'"):
        verbs.contribution(run.name, drop="site3")
