"""Clients at an address, through the training rounds of a real server process."""

from __future__ import annotations

import os
import socket
import threading

import numpy as np
import pytest
from tiny_runs import SIGNATURE, open_run, start_state

from truststram_lab.client import TrustStramClient
from truststram_lab.federated import FederatedClient
from truststram_lab.federated.addresses import Address, Notice, write_notice
from truststram_lab.federated.fl_server import _platform
from truststram_lab.learning import weights
from truststram_lab.learning.statistics import local_moments
from truststram_lab.sandbox.state import open_home

ROUNDS = 3


class Stepping(FederatedClient):
    """Adds its own step to every weight."""

    def __init__(self, client_id, step):
        super().__init__(client_id)
        self.step = step
        self.configs = []

    def fit(self, parameters, config):
        assert isinstance(parameters, list)
        self.configs.append(config)
        return [array + self.step for array in parameters], 10, {}


@pytest.fixture
def address(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUSTSTRAM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TRUSTSTRAM_BASE_URL", raising=False)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Address("localhost", probe.getsockname()[1])


def serve(address, names, clients):
    """A server whose run has its statistics already; returns the run when it is over."""
    folder = open_home(address.folder)
    with (
        _platform(folder, address.port, threading.Event()) as state,
        TrustStramClient(state.api_key, "production", state.url) as owner,
    ):
        run, tokens = open_run(owner, "federation", names, ROUNDS)
        for name in names:
            with owner.participant(tokens[name]) as site:
                [found] = site.assignments()
                moments = local_moments({"dose": np.arange(10.0)}, SIGNATURE)
                metadata = {"sample_count": "10", "metrics": "{}"}
                site.push(found.round_id, weights.encode(moments, metadata))
        notice = Notice(federation="federation", run=run.id, min_clients=2, server_pid=os.getpid())
        write_notice(folder, notice)
        for event in owner.events.stream(f"run:{run.id}"):
            last = event.type
        assert last == "run.completed"
        done = owner.runs.get(run.id)
        final, _ = weights.decode(owner.models.download("federation", done.model_version))
        write_notice(folder, notice.model_copy(update={"status": "completed"}))
        assert state.api_key not in repr(clients)
        return final


def test_clients_that_started_first_train_every_round_and_all_of_them_return(address):
    clients = [Stepping("client_1", 1.0), Stepping("client_2", 3.0)]
    threads = [
        threading.Thread(target=client.start, args=(str(address),), kwargs={"deadline_s": 120})
        for client in clients
    ]
    for thread in threads:
        thread.start()
    final = serve(address, ["client_1", "client_2"], clients)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    for name, array in start_state().items():
        assert np.array_equal(final[name], array + 2.0 * ROUNDS)
    for client in clients:
        assert [config["round"] for config in client.configs] == [1, 2, 3]
        assert {"epochs", "batch_size", "learning_rate", "proximal_mu"} <= set(client.configs[0])
        assert [e.number for e in client.events if e.state == "completed"] == [1, 2, 3]
