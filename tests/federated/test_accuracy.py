"""Is the federation worth it? Ten seeds on a real platform, and the arithmetic of one client."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from truststram_lab import verbs
from truststram_lab.federated import FederatedRun
from truststram_lab.federated.draft import Draft
from truststram_lab.federated.preparation import default_architecture, prepare
from truststram_lab.learning import weights
from truststram_lab.learning.statistics import local_moments, merge_moments
from truststram_lab.learning.training import initial_state, round_seed, train
from truststram_lab.preprocessing import TableEncoder, encoded_width
from truststram_lab.preprocessing.demo import load_demo
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.verbs import session as sessions

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def ten_runs(shared_session):
    runs = [
        verbs.federate("breast-cancer", seed=seed, background=True).wait() for seed in range(10)
    ]
    return [run.snapshot().report for run in runs]


def test_the_median_accuracy_over_ten_seeds_is_at_least_93_percent(ten_runs):
    assert statistics.median(report.federated.accuracy for report in ten_runs) >= 0.93


def test_in_every_seed_federated_beats_the_mean_of_the_sites_alone(ten_runs):
    for report in ten_runs:
        alone = statistics.mean(site.alone.accuracy for site in report.sites)
        assert report.federated.accuracy > alone


def test_digits_are_learnt_by_sites_that_each_miss_some(shared_session):
    report = verbs.federate("digits", background=True).wait().snapshot().report
    assert report.federated.accuracy >= 0.9
    assert all(site.alone.accuracy < report.federated.accuracy for site in report.sites)
    assert len(report.federated.recall) == 10


def test_one_client_and_full_participation_is_plain_local_training(shared_session):
    """McMahan et al. 2017, algorithm 1 with K = 1: the average of one update is that update."""
    demo = load_demo("breast-cancer")
    prepared = prepare(
        demo.frame,
        target=demo.target,
        source_kind="demo",
        source_name=demo.name,
        positive=demo.positive,
        clients=1,
    )
    local = LocalTraining(dtype="float64", epochs=3)
    client = sessions.require("testing").client
    run = FederatedRun.announce(client, Draft.of(prepared, model="single", rounds=5, local=local))
    run.start().wait()
    version = client.models.version("single")
    federated, _ = weights.decode(client.blobs.get(version.weights_sha256))

    site = prepared.sites[0]
    own = merge_moments([local_moments(site.frame, prepared.signature)], prepared.signature)
    inputs = TableEncoder(prepared.signature, own).encode_frame(site.frame)
    architecture = default_architecture(encoded_width(prepared.signature), prepared.signature)
    state = initial_state(architecture, prepared.seed, "float64")
    for number in range(1, 6):
        state, _ = train(
            architecture,
            state,
            inputs,
            site.codes,
            local,
            round_seed(prepared.seed, 0, number),
            "cpu",
            lambda: False,
        )
    for name, array in state.items():
        np.testing.assert_allclose(federated[name], array, rtol=0, atol=1e-9)
