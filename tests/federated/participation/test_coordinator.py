"""The documents' coordinator: a policy and a model."""

from __future__ import annotations

import pytest

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.federated import FederatedLearningCoordinator, FederatedServer

CONFIG = {
    "architecture": "neural_network",
    "layers": [
        {"type": "dense", "units": 128, "activation": "relu"},
        {"type": "dropout", "rate": 0.2},
        {"type": "dense", "units": 64, "activation": "relu"},
        {"type": "dense", "units": 1, "activation": "sigmoid"},
    ],
}


def test_the_documented_coordinator_makes_the_documented_model():
    coordinator = FederatedLearningCoordinator(
        strategy="federated_averaging",
        min_clients=3,
        min_fit_clients=2,
        min_eval_clients=2,
        fraction_fit=0.5,
        fraction_eval=0.5,
    )
    model = coordinator.create_model(model_config=CONFIG)
    assert coordinator.model is model
    assert coordinator.strategy.name == "fedavg"
    quorum = coordinator.quorum
    assert quorum.min_available == 3
    # max(min_fit, floor(fraction * present)), never more than are there
    assert [quorum.cohort_size(n) for n in (1, 3, 4, 7, 100)] == [1, 2, 2, 3, 50]
    assert [quorum.cohort_size(n, evaluate=True) for n in (3, 100)] == [2, 50]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"strategy": "fedavgg"}, "did you mean 'fedavg"),
        ({"min_clients": 0}, "min_clients is 0"),
        ({"min_clients": 2.0}, r"min_clients is 2\.0"),
        ({"fraction_fit": 1.5}, r"fraction_fit is 1\.5"),
        ({"min_clients": 2, "min_fit_clients": 3}, "set min_clients to 3 or more"),
        ({"min_clients": 2, "min_eval_clients": 3}, "set min_clients to 3 or more"),
    ],
)
def test_a_wrong_policy_is_one_sentence(arguments, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        FederatedLearningCoordinator(**arguments)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({**CONFIG, "architecture": "transformer"}, "'transformer' is no architecture"),
        ({"layer": CONFIG["layers"]}, "no 'layer'; did you mean 'layers'"),
        ({}, "needs layers"),
        ({**CONFIG, "optimizer": "lion"}, "adam or sgd"),
    ],
)
def test_a_wrong_model_is_one_sentence(config, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        FederatedLearningCoordinator().create_model(config)


def test_a_server_takes_the_coordinators_policy():
    coordinator = FederatedLearningCoordinator("fedprox:mu=0.5", min_clients=2)
    server = coordinator.server(rounds=4)
    assert (server.strategy.name, server.rounds) == ("fedprox", 4)
    assert server.coordinator is coordinator
    with pytest.raises(InvalidInputError, match="rounds is 0"):
        FederatedServer(rounds=0)
