"""Strategies, filters and privacy in simulated runs, on a real platform process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from truststram_lab import sandbox, verbs
from truststram_lab.exceptions import InvalidInputError, PrivacyBudgetError
from truststram_lab.federated import FederatedRun
from truststram_lab.federated.draft import Draft
from truststram_lab.federated.options import Options
from truststram_lab.federated.preparation import default_architecture, prepare
from truststram_lab.learning import weights
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.learning.statistics import local_moments, merge_moments
from truststram_lab.learning.training import initial_state, round_seed, train
from truststram_lab.preprocessing import TableEncoder, encoded_width
from truststram_lab.preprocessing.demo import load_demo
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.strategies import as_strategy
from truststram_lab.verbs import session as sessions


def _weights_of(run: FederatedRun) -> dict[str, np.ndarray]:
    client = sessions.require("testing").client
    version = client.models.version(run.model, run.snapshot().model_version)
    return weights.decode(client.blobs.get(version.weights_sha256))[0]


def _same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    return list(one) == list(two) and all(np.array_equal(one[key], two[key]) for key in one)


def _in_round(run: FederatedRun, number: int, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while run.snapshot().round < number:
        assert run.active, run
        assert time.monotonic() < deadline
        time.sleep(0.005)


#: Everything that a site keeps between rounds, and everything that the platform does.
PLANS = {
    "fedprox": {"strategy": "fedprox:mu=0.5"},
    "scaffold": {"strategy": "scaffold"},
    "fedadam": {"strategy": "fedadam:server_learning_rate=0.03"},
    "krum": {"strategy": "krum"},
    "top-k": {"filters": ["sparsification:top_k=0.05", "quantization:bits=8"]},
}


@pytest.fixture(scope="module")
def whole_runs(shared_session) -> dict[str, FederatedRun]:
    return {
        name: verbs.federate("breast-cancer", name=f"whole-{name}", rounds=5, **plan)
        for name, plan in PLANS.items()
    }


def test_every_strategy_learns_and_the_card_names_it(whole_runs):
    for name, run in whole_runs.items():
        report = run.snapshot().report
        assert run.status == "completed"
        assert report.federated.accuracy > report.majority_share, name
    assert "FedAdam (server learning rate 0.03, beta1 0.9" in whole_runs["fedadam"].card().text
    assert "FedProx (mu 0.5)" in whole_runs["fedprox"].card().text
    assert "keep the largest 5 %, then round to 8 bits" in whole_runs["top-k"].card().text


def test_strategies_give_different_models(whole_runs):
    found = [_weights_of(run)["layers.0.weight"].tobytes() for run in whole_runs.values()]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.long
def test_the_same_plan_stopped_and_killed_on_the_way_ends_with_the_same_bits(whole_runs, name):
    run = verbs.federate(
        "breast-cancer", name=f"cut-{name}", rounds=5, background=True, **PLANS[name]
    )
    _in_round(run, 1)
    run.stop()
    assert run.status == "stopped"
    sessions.require("testing").runs.clear()  # what a restart of the kernel does
    os.kill(sandbox.status().pid, signal.SIGKILL)
    again = verbs.runs(run.name, "resume")
    assert again.status == "completed"
    assert _same(_weights_of(again), _weights_of(whole_runs[name]))


_KERNEL = """
import sys
from truststram_lab import verbs
verbs.login(sandbox=True)
run = verbs.federate("breast-cancer", name=sys.argv[1], rounds=5, background=True,
                     strategy=sys.argv[2] or "fedavg", filters=sys.argv[3].split())
print(run.name, flush=True)
run.wait()
"""


@pytest.mark.parametrize("name", ["scaffold", "top-k"])
@pytest.mark.parametrize("after", [12])
@pytest.mark.long
def test_a_kernel_killed_on_the_way_is_gone_on_from_with_the_same_bits(whole_runs, name, after):
    plan = PLANS[name]
    given = [f"dead-{name}-{after}", plan.get("strategy", ""), " ".join(plan.get("filters", []))]
    kernel = subprocess.Popen(
        [sys.executable, "-c", _KERNEL, *given], stdout=subprocess.PIPE, text=True
    )
    assert kernel.stdout is not None
    run = kernel.stdout.readline().strip()
    client = sessions.require("testing").client
    deadline = time.monotonic() + 60
    while len(client.runs.updates(run).items) < after:
        assert time.monotonic() < deadline
        assert kernel.poll() is None
    os.kill(kernel.pid, signal.SIGKILL)
    kernel.communicate()
    again = verbs.runs(run, "resume")
    assert again.status == "completed"
    assert _same(_weights_of(again), _weights_of(whole_runs[name]))


def test_a_site_keeps_nothing_after_the_end(whole_runs, shared_session):
    folders = list((shared_session / "outbox" / "simulations").glob("*"))
    kept = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert kept == []


def test_what_left_is_listed_field_by_field_and_adds_up_to_the_bodies(whole_runs):
    sent = verbs.runs(whole_runs["top-k"].name, "sent")
    updates = [each for each in sent if each.kind == "update"]
    assert len(updates) == 5 * 5
    for each in updates:
        assert each.arrays[0].name == "layers.0.weight"
        assert each.array_bytes < each.body_bytes
        assert each.array_bytes < 0.1 * each.before_bytes
        assert [step.filter.type for step in each.steps] == ["sparsification", "quantization"]
        assert json.loads(each.texts["metrics"])["samples"] == float(each.texts["sample_count"])
    kinds = {(each.site is None, each.kind) for each in sent}
    assert kinds >= {
        (True, "plan"),
        (True, "initial weights"),
        (True, "report"),
        (False, "registration"),
        (False, "statistics"),
        (False, "update"),
    }


def test_the_listed_bodies_are_the_files_that_the_platform_has(whole_runs):
    client = sessions.require("testing").client
    for each in verbs.runs(whole_runs["top-k"].name, "sent"):
        if each.sha256 is not None:
            assert len(client.blobs.get(each.sha256)) == each.body_bytes


def test_a_socket_carries_the_listed_bodies_and_little_else(whole_runs):
    run = whole_runs["top-k"]
    sent = verbs.runs(run.name, "sent")
    for site in run.snapshot().report.sites:
        bodies = sum(each.body_bytes for each in sent if each.site == site.name)
        assert bodies < site.sent_bytes < bodies + 40_000


def test_filters_shrink_what_leaves(whole_runs):
    def update_bytes(name: str) -> int:
        sent = verbs.runs(whole_runs[name].name, "sent")
        return sum(each.array_bytes for each in sent if each.kind == "update")

    assert 10 * update_bytes("top-k") < update_bytes("fedprox")
    assert update_bytes("scaffold") == 2 * update_bytes("fedprox")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"strategy": "fedadm"}, "did you mean 'fedadam'"),
        ({"strategy": "fedprox:mew=1"}, "mu"),
        ({"strategy": "krum", "clients": 4}, "5"),
        ({"strategy": "fedprox", "dp": 3.0}, "do not go together"),
        ({"strategy": "krum", "dp": 3.0, "dp_unit": "client"}, "do not go together"),
        ({"filters": ["gaussian_noise:sigma=0.1"], "dp": 3.0}, "leave the filter out"),
        ({"filters": ["sparsify:top_k=0.1"]}, "sparsification"),
        ({"dp": 0.0}, "no epsilon"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_trains(whole_runs, options, sentence):
    before = len(verbs.runs())
    with pytest.raises(InvalidInputError, match=sentence):
        verbs.federate("breast-cancer", name="refused", **options)
    assert len(verbs.runs()) == before


# Privacy ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def private_run(shared_session) -> FederatedRun:
    return verbs.federate("digits", name="private", rounds=2, dp=4.0, seed=5)


def test_a_private_run_spends_what_was_asked_for_and_says_all_that_it_depends_on(private_run):
    spent = private_run.spending
    plan = private_run.snapshot().plan.privacy
    assert account([plan.use(2)], plan.delta).epsilon <= spent.epsilon
    assert 3.9 < spent.epsilon <= 4.0
    assert spent.before == 0
    text = " ".join(private_run.card().text.split())
    for part in (
        "record-level, epsilon 4 of 4",
        "at delta",
        "one row more or less",
        "DP-SGD (clip 1",
        "add-or-remove",
        "the platform saw noised updates only",
        "Losses, accuracies and row counts that a site reports are outside",
    ):
        assert part in text
    assert "none added" not in text


def test_a_second_run_on_the_same_data_composes_with_the_first(private_run):
    again = verbs.federate("digits", name="private-2", rounds=1, dp=1.0, seed=5).spending
    assert again.before == pytest.approx(private_run.spending.epsilon)
    assert again.before < again.together < again.before + again.epsilon
    limit = again.together * 1.05
    with pytest.raises(PrivacyBudgetError, match="--dp-limit") as refused:
        verbs.federate("digits", name="private-3", rounds=1, dp=3.0, seed=5, dp_limit=limit)
    assert refused.value.spent == pytest.approx(again.together)
    text = " ".join(verbs.runs("private-2-1").card().text.split())
    assert "spent on this data before, together" in text


def test_a_private_run_that_is_stopped_sends_no_second_noise_and_is_charged_once(whole_runs):
    run = verbs.federate("breast-cancer", name="halted", rounds=4, dp=3.0, background=True)
    _in_round(run, 1)
    run.stop()
    former = verbs.runs(run.name, "sent")
    sessions.require("testing").runs.clear()
    again = verbs.runs(run.name, "resume")
    assert again.status == "completed"
    assert again.spending.epsilon <= 3.0
    digests: dict[tuple[str | None, int | None], set[str | None]] = {}
    for each in [*former, *verbs.runs(run.name, "sent")]:
        if each.sha256 is not None and each.site is not None:
            digests.setdefault((each.site, each.round), set()).add(each.sha256)
    assert all(len(found) == 1 for found in digests.values())
    assert len(digests) == 5 * 5


def test_no_mean_of_the_rows_leaves_in_a_private_run(whole_runs):
    run = verbs.federate("breast-cancer", name="bounded", rounds=1, dp=3.0)
    for column in run.snapshot().statistics.columns:
        values = np.concatenate([s.frame[column.name].to_numpy() for s in run._prepared.sites])
        assert column.mean != pytest.approx(values.mean(), rel=1e-6)


def test_noise_of_a_filter_is_shown_for_what_it_is(whole_runs):
    filters = ["gradient_clip:max_norm=1.0", "gaussian_noise:sigma=0.01"]
    run = verbs.federate("breast-cancer", name="example", rounds=2, filters=filters)
    text = " ".join(run.card().text.split())
    assert run.spending.epsilon > 10_000
    assert "an epsilon this large protects nobody" in text
    assert "none added" not in text
    bare = verbs.federate("breast-cancer", name="bare", rounds=1, filters=filters[1:])
    assert bare.spending.epsilon is None
    assert "No differential privacy: noise without a clip" in " ".join(bare.card().text.split())


# One site ---------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "median", "fedprox:mu=0"])
def test_one_client_with_full_participation_is_plain_local_training(shared_session, strategy):
    """McMahan et al. 2017, algorithm 1 with K = 1; for SCAFFOLD c and c_i are then the same."""
    demo = load_demo("breast-cancer")
    prepared = prepare(
        demo.frame,
        target=demo.target,
        source_kind="demo",
        source_name=demo.name,
        positive=demo.positive,
        clients=1,
    )
    local = LocalTraining(dtype="float64", epochs=2)
    draft = Draft.of(
        prepared,
        model=f"single-{strategy.partition(':')[0]}",
        rounds=4,
        local=local,
        options=Options(strategy=as_strategy(strategy)),
    )
    run = FederatedRun.announce(sessions.require("testing").client, draft)
    run.start().wait()

    (site,) = prepared.sites
    own = merge_moments([local_moments(site.frame, prepared.signature)], prepared.signature)
    inputs = TableEncoder(prepared.signature, own).encode_frame(site.frame)
    architecture = default_architecture(encoded_width(prepared.signature), prepared.signature)
    state = initial_state(architecture, prepared.seed, "float64")
    for number in range(1, 5):
        seed = round_seed(prepared.seed, 0, number)
        state, _ = train(architecture, state, inputs, site.codes, local, seed, "cpu", lambda: False)
    for name, array in _weights_of(run).items():
        np.testing.assert_allclose(array, state[name], rtol=0, atol=1e-9)


# Computed again ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANS)
def test_the_platforms_rounds_come_out_equal_when_computed_again(whole_runs, name):
    replayed = verbs.runs(whole_runs[name].name, "replay")
    assert len(replayed) == 5
    assert replayed.equal
    assert len(verbs.runs(whole_runs[name].name, "replay", number=2)) == 1


def test_a_whole_site_is_hidden_and_its_noise_is_not_drawn_again(whole_runs):
    run = verbs.federate(
        "breast-cancer", name="sites", rounds=2, dp=8.0, dp_unit="client", delta=1e-3
    )
    text = " ".join(run.card().text.split())
    assert "client-level, epsilon 8 of 8" in text
    assert "one site more or less" in text
    assert "the platform saw every update" in text
    assert run.spending.epsilon == pytest.approx(run.snapshot().statement.epsilon)
    replayed = verbs.runs(run.name, "replay")
    assert replayed.equal
    assert all(each.noised for each in replayed)
