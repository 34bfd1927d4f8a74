"""A sweep on a real sandbox: the runs it makes, the best, and what a stop leaves."""

from __future__ import annotations

import threading
import time

import pytest

from truststram_lab import verbs
from truststram_lab.exceptions import InvalidInputError
from truststram_lab.verbs import session as sessions
from truststram_lab.verbs.sweeping import parse_sweep

OPTIONS = {"clients": 3, "rounds": 2, "epochs": 1}


def client():
    return sessions.require("testing").client


def weights_of(run) -> str:
    plan = run.snapshot().plan
    return client().models.version(f"{plan.model}:{run.snapshot().model_version}").weights_sha256


def names() -> set[str]:
    return {run.name for run in client().runs.list().items}


def test_its_runs_are_those_made_one_by_one_bit_for_bit(shared_session):
    found = verbs.sweep("breast-cancer", "lr=0.02,0.2", seeds=2, name="one-by", **OPTIONS)
    assert [point.label for point in found.points] == [
        "learning_rate=0.02",
        "learning_rate=0.2",
    ] * 2
    for point, run in zip(found.points, found, strict=True):
        alone = verbs.federate(
            "breast-cancer", name="alone", seed=point.seed, **point.values, **OPTIONS
        )
        assert weights_of(run) == weights_of(alone)
    assert verbs.runs(found[1].name, "replay").equal


def test_the_best_is_deployed_and_not_the_last(shared_session):
    found = verbs.sweep("breast-cancer", {"learning_rate": [0.1, 1e-7]}, name="best-of", **OPTIONS)
    assert found.best is found[0]
    assert found.deployed == "best-of:1"
    assert client().deployments.get("best-of").version == 1
    assert not found[1].snapshot().deployed
    card = found.card()
    assert "Best by held-out accuracy: learning_rate=0.1" in " ".join(card.text.split())
    assert "which says little" in " ".join(card.text.split())
    assert len(card.html.encode()) + len(card.text.encode()) < 50_000
    frame = found.to_frame()
    assert list(frame["learning_rate"]) == [0.1, 1e-7]
    assert list(frame["accuracy"]) == [run.snapshot().report.federated.accuracy for run in found]


def test_parameters_of_the_strategy_go_by_their_names(shared_session):
    found = verbs.sweep(
        "breast-cancer", "mu=0,2", strategy="fedprox:mu=1", name="pulled", **OPTIONS
    )
    assert [run.snapshot().plan.strategy.mu for run in found] == [0, 2]


def test_parameters_are_combined_each_value_with_each(shared_session):
    found = verbs.sweep(
        "breast-cancer",
        ["strategy=fedavg|fedadam:server_learning_rate=0.05,tau=0.01", "clients=2,25"],
        name="grid",
        rounds=1,
        epochs=1,
        split="iid",
    )
    told = [
        (str(p.values["strategy"]).partition(":")[0], p.values["clients"]) for p in found.points
    ]
    assert told == [("fedavg", 2), ("fedavg", 25), ("fedadam", 2), ("fedadam", 25)]
    plans = [run.snapshot().plan for run in found]
    assert [plan.hosted is None for plan in plans] == [True, False, True, False]
    assert plans[2].strategy.tau == plans[3].hosted.strategy.tau == 0.01


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ("clients=3,30000", r"With clients=30000: .* choose --clients"),
        ("lr=0.1,fast", "learning_rate=fast is no number"),
        ("epochs=1,1.5", "epochs=1.5 is no whole number"),
        ("strategy=fedavg|fedagv", "With strategy=fedagv: .*fedavg"),
        ("lr=0.1,", "is no sweep"),
        ("=1,2", "is no sweep"),
        ("seed=1,2", "--seeds N"),
        ("mu=1,2", "'mu' is no parameter"),
        ("rond=1,2", "did you mean 'rounds'"),
        ("lr=0.1,1e-1", "comes twice"),
        ([], "Nothing to sweep over"),
        ({"clients": list(range(2, 300))}, "more than 200"),
    ],
)
def test_everything_is_checked_before_anything_trains(shared_session, over, says):
    before = names()
    with pytest.raises(InvalidInputError, match=says):
        verbs.sweep("breast-cancer", over, name="refused")
    assert names() == before


def test_a_sweep_in_the_background_is_refused_with_the_way_out(shared_session):
    with pytest.raises(InvalidInputError, match="leave --background out"):
        verbs.sweep("breast-cancer", "lr=0.1,0.2", background=True)


def test_a_stop_from_elsewhere_ends_the_sweep_and_leaves_what_was_served(shared_session):
    verbs.federate("breast-cancer", name="halted", **OPTIONS)

    def stop() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            going = [run for run in client().runs.list().items if run.name == "halted-3"]
            if going and going[0].round >= 1:
                client().runs.stop("halted-3")
                return
            time.sleep(0.05)

    stopper = threading.Thread(target=stop)
    stopper.start()
    found = verbs.sweep("breast-cancer", "rounds=1,400,2", name="halted", clients=3, epochs=1)
    stopper.join()
    assert found.status == "stopped"
    assert [run.status for run in found] == ["completed", "stopped"]
    assert found.deployed is None
    assert client().deployments.get("halted").version == 1
    assert "halted-4" not in names()
    assert "2 runs of 3; stopped" in found.card().text
    assert verbs.runs("halted-3", "resume").status == "completed"


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("lr=0.01,0.1", "learning_rate", [0.01, 0.1]),
        ("batch-size=8,16", "batch_size", [8, 16]),
        ("strategy=fedavg|fedadam:beta1=0.8,tau=0.1", "strategy",
         ["fedavg", "fedadam:beta1=0.8,tau=0.1"]),
        ("hostile=none|0.2:sign_flip", "hostile", [None, "0.2:sign_flip"]),
        ("dp=none,3", "dp", [None, 3.0]),
        ("mu=1,0.5", "mu", [1, 0.5]),
    ],
)  # fmt: skip
def test_a_sweep_is_read_from_its_text(text, name, values):
    assert parse_sweep(text) == (name, values)
