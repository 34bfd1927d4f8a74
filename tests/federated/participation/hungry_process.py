"""A process whose address space is limited, so that real allocations fail: prints what it was told.

``python hungry_process.py KIND``; KIND is house, model, module, fit or state.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from pathlib import Path

import numpy as np
import torch

from truststram_lab.exceptions import InsufficientResourcesError
from truststram_lab.federated.network_model import NetworkModel
from truststram_lab.federated.participation.functions import adapt
from truststram_lab.federated.participation.modules import ModuleTraining, loss_for
from truststram_lab.learning.training import initial_state, train
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.registry import Architecture, DenseLayer

ROWS, WIDTH = 8192, 16384  # one layer's outputs for all rows: 512 MiB
SPARE = 400 * 2**20
NETWORK = Architecture(
    inputs=2, layers=[DenseLayer(units=WIDTH, activation="tanh"), DenseLayer(units=1)]
)
X = np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
STATE = initial_state(NETWORK, 0)


def network() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(2, WIDTH), torch.nn.Tanh(), torch.nn.Linear(WIDTH, 1)
    )


def own_loop(arrays, size: int):
    module = network()
    with torch.no_grad():
        for weight, array in zip(module.parameters(), arrays, strict=True):
            weight.copy_(torch.as_tensor(array))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for start in range(0, ROWS, size):
        optimizer.zero_grad()
        x = torch.from_numpy(X[start : start + size])
        y = torch.from_numpy(Y[start : start + size])
        loss_for(1)(module(x), y).backward()
        optimizer.step()
    return [weight.detach().numpy() for weight in module.parameters()], ROWS, {}


def house(size: int) -> None:
    local = LocalTraining(epochs=1, batch_size=size, learning_rate=0.01)
    train(NETWORK, STATE, X, Y, local, 0, "cpu", lambda: False)


def model(size: int) -> None:
    MODEL.fit(X, Y, epochs=1, batch_size=size)


def module(size: int) -> None:
    made = network()
    base = {name: tensor.numpy().copy() for name, tensor in made.state_dict().items()}
    config = {"epochs": 1, "batch_size": size, "learning_rate": 0.01}
    ModuleTraining(made, X, Y, loss_for(1))(base, config)


def fit(size: int) -> None:
    def function(parameters, config):
        return own_loop(parameters, config["batch_size"])

    adapt(function)(STATE, {"epochs": 1, "batch_size": size})


def state(size: int) -> None:
    def function(given, batch_size=size):
        arrays, rows, metrics = own_loop(list(given.values()), batch_size)
        return dict(zip(given, map(torch.from_numpy, arrays), strict=True)), rows, metrics

    adapt(function)(STATE, {})


MODEL = NetworkModel(
    [
        {"type": "dense", "units": WIDTH, "activation": "tanh"},
        {"type": "dense", "units": 1, "activation": "sigmoid"},
    ]
)


def main(kind: str) -> None:
    torch.set_num_threads(1)
    work = {each.__name__: each for each in (house, model, module, fit, state)}[kind]
    work(64)  # everything is loaded
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + SPARE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        work(ROWS)
    except InsufficientResourcesError as error:
        said, attached = error.message, error.__context__ or error.__cause__
    fits = int(re.search(r"batch_size of (\d+) or less", said)[1])
    work(fits)  # the same kernel goes on
    print(json.dumps({"said": said, "fits": fits, "attached": repr(attached)}))


if __name__ == "__main__":
    main(sys.argv[1])
