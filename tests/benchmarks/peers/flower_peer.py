"""The same federation in Flower's simulation; needs ``flwr[simulation]`` and torch alone."""

from __future__ import annotations

import json
import sys
import time

import flwr
import numpy as np
from flwr.client import ClientApp, NumPyClient
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation


def client_app(problem: str) -> ClientApp:
    class Site(NumPyClient):
        def __init__(self, place):
            self.place = place

        def fit(self, parameters, config):
            import torch
            from torch import nn

            torch.set_num_threads(1)
            given = np.load(problem)
            batch, rate = int(given["settings"][0]), float(given["settings"][1])
            module = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2))
            names = list(module.state_dict())
            module.load_state_dict(
                {n: torch.from_numpy(np.array(a)) for n, a in zip(names, parameters, strict=True)}
            )
            loss, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(module.parameters(), lr=rate)
            x = torch.from_numpy(given["x"][self.place])
            y = torch.from_numpy(given["y"][self.place])
            order = torch.from_numpy(given["orders"][config["number"], self.place])
            for places in order.split(batch):
                optimizer.zero_grad()
                loss(module(x[places]), y[places]).backward()
                optimizer.step()
            return [v.numpy() for v in module.state_dict().values()], len(x), {}

    def make(context):
        return Site(int(context.node_config["partition-id"])).to_client()

    return ClientApp(client_fn=make)


class Timed(FedAvg):
    """FedAvg that notes when its rounds begin and end, and the weights."""

    begins: list[float]
    ends: list[float]
    last: list[np.ndarray]

    def configure_fit(self, server_round, parameters, client_manager):
        self.begins.append(time.perf_counter())
        found = super().configure_fit(server_round, parameters, client_manager)
        for _, instruction in found:
            instruction.config["number"] = server_round - 1
        return found

    def aggregate_fit(self, server_round, results, failures):
        if failures:
            raise RuntimeError(f"{len(failures)} clients failed: {failures[0]}")
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        self.last = parameters_to_ndarrays(parameters)
        self.ends.append(time.perf_counter())
        return parameters, metrics


def main(problem: str, answer: str) -> None:
    given = np.load(problem)
    clients, rounds = given["x"].shape[0], given["orders"].shape[0]
    strategy = Timed(
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=ndarrays_to_parameters([given[f"w{i}"] for i in range(4)]),
    )
    strategy.begins, strategy.ends = [], []

    def server(context):
        return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))

    begun = time.perf_counter()
    run_simulation(
        ServerApp(server_fn=server),
        client_app(problem),
        num_supernodes=clients,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    wall = time.perf_counter() - begun
    np.savez(answer, **{f"w{i}": a for i, a in enumerate(strategy.last)})
    each = [end - begin for begin, end in zip(strategy.begins, strategy.ends, strict=True)]
    print()
    print(
        json.dumps(
            {
                "version": flwr.__version__,
                "wall_s": wall,
                "rounds_s": strategy.ends[-1] - strategy.begins[0],
                "each_round_s": each,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
