"""The documents' server and its clients at an address: processes, ports, waiting, leaving."""

from __future__ import annotations

import os
import socket
import threading

import numpy as np
import pandas as pd
import pytest

from truststram_lab.exceptions import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    RequestTimeoutError,
    RunStoppedError,
)
from truststram_lab.federated import FederatedClient, FederatedServer
from truststram_lab.federated.addresses import (
    Address,
    Notice,
    parse_address,
    read_notice,
    write_notice,
)
from truststram_lab.federated.fl_server import _platform
from truststram_lab.sandbox.process import ask, is_alive
from truststram_lab.sandbox.state import open_home, read_state


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUSTSTRAM_HOME", str(tmp_path / "home"))
    for name in ("TRUSTSTRAM_FL_ADDRESS", "TRUSTSTRAM_FL_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_address_is_given_or_configured_or_the_documented_one(home, monkeypatch):
    assert str(parse_address()) == "localhost:8080"
    monkeypatch.setenv("TRUSTSTRAM_FL_ADDRESS", "127.0.0.1:9000")
    assert str(parse_address()) == "127.0.0.1:9000"
    assert str(parse_address("localhost:7")) == "localhost:7"
    assert parse_address("fl.example.org:443").url == "https://fl.example.org:443"
    assert parse_address("[::1]:9").url == "http://[::1]:9"


@pytest.mark.parametrize(
    "text", ["localhost", "localhost:", ":80", "localhost:0", "a:70000", "a:b"]
)
def test_what_is_no_address_is_said_with_one_that_is(home, text):
    with pytest.raises(ConfigurationError, match=r"write host:port, such as localhost:8080"):
        parse_address(text)


def test_updates_are_never_sent_unencrypted_to_another_computer(home):
    with pytest.raises(ConfigurationError, match=r"use https://fl\.example\.org:80"):
        parse_address("http://fl.example.org:80")


def test_every_name_of_this_computer_is_one_server(home):
    folders = {Address(host, 8080).folder for host in ("localhost", "127.0.0.1", "::1")}
    assert folders == {home / "federations" / "localhost-8080"}


def test_a_notice_is_read_as_it_was_written_and_is_the_users_alone(home):
    notice = Notice(federation="f", run="r", min_clients=3, server_pid=os.getpid())
    folder = Address("localhost", 8080).folder
    assert read_notice(folder) is None
    write_notice(folder, notice)
    assert read_notice(folder) == notice
    assert (folder / "federation.json").stat().st_mode & 0o077 == 0


def test_the_process_listens_on_the_address_and_ends_with_the_block(home, free_port):
    folder = open_home(Address("localhost", free_port).folder)
    with _platform(folder, free_port, threading.Event()) as state:
        assert state.url == f"http://127.0.0.1:{free_port}"
        assert ask(state) == "ours"
        pid = state.pid
    assert not is_alive(pid)
    with _platform(folder, free_port, threading.Event()) as again:
        assert again.pid != pid
    assert not is_alive(read_state(folder).pid)


def test_the_process_ends_when_the_block_fails(home, free_port):
    folder = open_home(Address("localhost", free_port).folder)
    seen = []

    def fail():
        with _platform(folder, free_port, threading.Event()) as state:
            seen.append(state.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not is_alive(seen[0])


def test_a_taken_port_is_said_with_its_holder_and_the_way_out(home):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        server = FederatedServer(address=f"localhost:{port}")
        with pytest.raises(
            ConfigurationError, match=rf"Port {port} .*process {os.getpid()} .*port=0"
        ):
            server.start()
    assert not (home / "federations").exists()


def test_a_server_that_was_told_to_stop_ends_before_it_opens(home):
    server = FederatedServer(port=0, min_clients=1, rounds=1)
    server.stop()
    with pytest.raises(RunStoppedError):
        server.start()
    assert server.address != "localhost:0"


def test_another_computer_is_not_served_from_here(home):
    with pytest.raises(ConfigurationError, match="truststram-lab serve"):
        FederatedServer(address="fl.example.org:443")


def test_a_client_without_a_server_says_how_to_start_one(home, free_port):
    client = FederatedClient("client_1")
    with pytest.raises(RequestTimeoutError, match=rf"FederatedServer\(.*localhost:{free_port}"):
        client.start(f"localhost:{free_port}", deadline_s=0.2)


def test_a_client_waits_for_the_server_and_leaves_when_it_is_told_to(home, free_port):
    client = FederatedClient("client_1")
    thread = threading.Thread(
        target=client.start, args=(f"localhost:{free_port}",), kwargs={"deadline_s": 60}
    )
    thread.start()
    client.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_a_notice_of_a_server_that_is_gone_is_no_server(home, free_port):
    address = Address("localhost", free_port)
    with _platform(open_home(address.folder), free_port, threading.Event()):
        pass
    write_notice(
        address.folder, Notice(federation="f", run="r", min_clients=1, server_pid=os.getpid())
    )
    with pytest.raises(RequestTimeoutError):
        FederatedClient("client_1").start(str(address), deadline_s=0.2)


def test_a_second_client_of_a_name_is_told_who_holds_it(home, free_port):
    address = f"localhost:{free_port}"
    first = FederatedClient("client_1")
    thread = threading.Thread(target=first.start, args=(address,), kwargs={"deadline_s": 60})
    thread.start()
    lock = home / "outbox" / f"localhost%3A{free_port}" / "federation" / "client_1" / "lock"
    while not lock.exists() or not lock.read_text():
        assert thread.is_alive()
    with pytest.raises(ConflictError, match=rf"Client 'client_1' .*process {os.getpid()} since"):
        FederatedClient("client_1").start(address, deadline_s=0.2)
    first.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_a_client_of_another_computer_needs_a_token(home):
    with pytest.raises(AuthenticationError, match="TRUSTSTRAM_FL_TOKEN"):
        FederatedClient("client_1").start("fl.example.org:443", deadline_s=0.2)


def table(tmp_path, **more):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    frame = pd.DataFrame({"age": x[:, 0] * 1000, "dose": x[:, 1], "label": (x[:, 0] > 0) * 1})
    for name, values in more.items():
        frame[name] = values
    path = tmp_path / "client_0_data.csv"
    frame.to_csv(path, index=False)
    return path


def test_a_file_is_read_at_once_and_its_target_is_said(home, tmp_path, capsys):
    client = FederatedClient(client_id="client_0", data_path=table(tmp_path))
    assert "predicts column 'label' of client_0_data.csv" in capsys.readouterr().out
    start = client.get_parameters()
    config = {"epochs": 20, "batch_size": 8}
    weights, rows, metrics = client.fit(start, config)
    assert rows == 48
    assert {"loss", "accuracy"} <= set(metrics)
    loss, held_out, found = client.evaluate(weights, config)
    assert held_out == 12
    assert found["accuracy"] > 0.8
    assert loss < client.evaluate(start, config)[0]


def test_two_clients_of_a_file_begin_alike(home, tmp_path):
    one, two = (
        FederatedClient(name, table(tmp_path), target_col="label") for name in ("one", "two")
    )
    for a, b in zip(one.get_parameters(), two.get_parameters(), strict=True):
        assert np.array_equal(a, b)


def test_the_target_is_target_or_label_or_the_last_column(home, tmp_path):
    with_target = FederatedClient("a", table(tmp_path, target=[0, 1] * 30))
    assert with_target._data.target == "target"
    renamed = pd.read_csv(table(tmp_path)).rename(columns={"label": "outcome"})
    renamed.to_csv(tmp_path / "last.csv", index=False)
    assert FederatedClient("a", tmp_path / "last.csv")._data.target == "outcome"


@pytest.mark.parametrize(
    ("more", "arguments", "sentence"),
    [
        ({}, {"data_path": "client_0_dota.csv"}, "no file .*did you mean 'client_0_data.csv'"),
        ({}, {"target_col": "lable"}, "no column 'lable'; did you mean 'label'"),
        ({"ward": "icu"}, {"target_col": "label"}, "Column 'ward' holds no numbers"),
        ({"age": [np.nan] * 5 + [1.0] * 55}, {}, "Column 'age' has 5 values"),
        ({"target": ["yes", "no"] * 30}, {}, "target 'target' must hold classes"),
        ({"target": np.linspace(0, 1, 60)}, {}, "target 'target' must hold classes"),
    ],
)
def test_a_file_that_does_not_serve_is_said_before_anything_starts(
    home, tmp_path, more, arguments, sentence
):
    path = table(tmp_path, **more)
    given = {"data_path": path, **arguments}
    given["data_path"] = tmp_path / given["data_path"]
    with pytest.raises(InvalidInputError, match=sentence):
        FederatedClient("a", **given)


def test_minus_one_and_one_are_two_classes(home, tmp_path):
    client = FederatedClient("a", table(tmp_path, target=[-1, 1] * 30))
    assert (client._data.classes, set(client._data.y.tolist())) == (2, {0, 1})


def test_a_model_that_nobody_made_is_said_with_the_way_out(home):
    with pytest.raises(InvalidInputError, match="create_model"):
        _ = FederatedClient("a").model
    with pytest.raises(InvalidInputError, match="give data_path="):
        FederatedClient("a").fit([], {})


class Documented(FederatedClient):
    """The client of the documents, word for word."""

    def __init__(self, client_id, local_data):
        super().__init__(client_id)
        self.local_data = local_data

    def get_parameters(self):
        return self.model.get_weights()

    def fit(self, parameters, config):
        self.model.set_weights(parameters)
        self.model.fit(
            self.local_data["X_train"],
            self.local_data["y_train"],
            epochs=config["epochs"],
            batch_size=config["batch_size"],
            validation_split=0.2,
        )
        return self.model.get_weights(), len(self.local_data["X_train"]), {}


def test_the_documented_client_gives_first_weights_for_its_own_columns(home):
    from truststram_lab.federated.address_side import _initial, _work

    x = np.random.default_rng(0).normal(size=(20, 7))
    client = Documented("client_1", {"X_train": x, "y_train": (x[:, 0] > 0) * 1})
    client._model_config = {"layers": [{"type": "dense", "units": 1, "activation": "sigmoid"}]}
    first = _initial(client)
    assert [array.shape for array in first.values()] == [(1, 7), (1,)]
    trained = _work(client).train(first, {"epochs": 1, "batch_size": 4})
    assert trained.samples == 20
    assert not np.array_equal(*[state["array_0000"] for state in (first, trained.state)])
