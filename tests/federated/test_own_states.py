"""What virtual clients keep between rounds: which row counts, and how much memory it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from truststram_lab.federated.hosted.own_states import OwnStates


def _state(value: float) -> dict[str, np.ndarray]:
    return {"w": np.full((2, 3), value, np.float32), "n": np.array(value, np.float64)}


def test_a_round_counts_when_its_index_is_kept_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "clients" / "controls"
    first = OwnStates(4, path)
    assert first.index() is None
    first[1] = _state(1.0)
    assert 1 not in first
    index = first.index()
    first.close()
    # The next round writes, and its kernel dies before its update was taken.
    second = OwnStates(4, path, index)
    second[1], second[2] = _state(2.0), _state(2.5)
    lost = second.index()
    second.close()
    again = OwnStates(4, path, index)
    assert again[1]["w"][0, 0] == 1.0
    assert 2 not in again
    again[1] = _state(3.0)
    assert again[1]["w"][0, 0] == 1.0
    taken = again.index()
    again.close()
    third = OwnStates(4, path, taken)
    assert third[1]["n"] == 3.0
    assert lost != index
    third.close()


@pytest.mark.parametrize("memory_bytes", [0, 2**20])
def test_without_a_path_what_is_written_counts_at_once(memory_bytes: int) -> None:
    states = OwnStates(3, memory_bytes=memory_bytes)
    assert states.get(0, {}) == {}
    states[0] = _state(1.5)
    assert states[0]["w"].dtype == np.float32
    assert states[0]["n"] == 1.5
    states.close()


_ROUNDS = """
import hashlib, json, sys
import numpy as np
from pathlib import Path
from truststram_lab.federated.hosted.client_memory import ClientMemory
from truststram_lab.federated.hosted.own_states import OwnStates
from truststram_lab.federated.hosted.rounds import ClientRounds, Rules
from truststram_lab.learning.device import memory_facts
from truststram_lab.learning.training import initial_state
from truststram_lab.learning.virtual import Client, Task, Work, choose
from truststram_lab.learning.weights import encode
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.personal import Ditto
from truststram_lab.schemas.registry import Architecture, DenseLayer
from truststram_lab.schemas.simulation import Hosted
from truststram_lab.schemas.strategies import Scaffold

where, clients, rounds, hidden = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
network = Architecture(inputs=8, layers=[DenseLayer(units=hidden, activation="relu"),
                                         DenseLayer(units=10)])
local = LocalTraining(epochs=1, batch_size=4, dtype="float32")
rng = np.random.default_rng(0)
rows = [Client(rng.normal(size=(4, 8)).astype(np.float32), rng.integers(0, 10, 4))
        for _ in range(clients)]
plan = Hosted(clients=clients, strategy=Scaffold(), personal=Ditto())
base = initial_state(network, 0, "float32")
trainer = choose(Task.from_architecture(network, local), rows, "vectorized", chunk=64)
todo = ClientRounds(Rules(plan, 0, 1, 0.1), np.full(clients, 4), lambda _: None)

def peak():
    return memory_facts("cpu").peak_bytes

# Whatever training itself takes is taken before anything is counted.
works = [Work(place, place + 1, start=dict(base), correction=dict(base))
         for place in range(min(clients, 256))]
for _ in trainer.train(base, works):
    pass
before, peaks, kept = peak(), [], {}
for number in range(1, rounds + 1):
    def states(part):
        if where == "memory":
            return kept.setdefault(part, OwnStates(clients, memory_bytes=2**40))
        return OwnStates(clients, Path(where) / part, kept.get(part))
    memory = ClientMemory(plan, base, states, kept.get("server"))
    made = todo.perform(trainer, number, base, memory, lambda: False)
    base = made.state
    if where != "memory":
        kept = {**memory.indexes()}
    kept["server"] = memory.server
    if where != "memory":
        memory.close()
    peaks.append(peak() - before)
last = ClientMemory(plan, base, states, kept["server"])
own = hashlib.sha256()
for client in range(clients):
    for array in last.personal(client, base).values():
        own.update(array.tobytes())
print(json.dumps({
    "model": hashlib.sha256(encode(base)).hexdigest(), "own": own.hexdigest(), "peaks": peaks,
    "states": 2 * clients * sum(a.nbytes for a in base.values()),
}))
"""


def _rounds(where: str, clients: int, rounds: int, hidden: int) -> dict:
    ran = subprocess.run(
        [sys.executable, "-c", _ROUNDS, where, str(clients), str(rounds), str(hidden)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict = json.loads(ran.stdout)
    return found


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ten_thousand_clients_states_are_in_files_and_the_bits_are_those_in_memory(
    tmp_path: Path,
) -> None:
    in_memory = _rounds("memory", 10_000, 2, 256)
    in_files = _rounds(str(tmp_path), 10_000, 2, 256)
    assert in_files["model"] == in_memory["model"]
    assert in_files["own"] == in_memory["own"]
    assert in_memory["states"] > 300e6
    assert in_memory["peaks"][-1] > 0.9 * in_memory["states"]
    # Working memory is a few windows of clients, whatever their number.
    assert in_files["peaks"][-1] < 0.25 * in_files["states"]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_memory_is_flat_over_a_hundred_rounds(tmp_path: Path) -> None:
    found = _rounds(str(tmp_path), 200, 100, 64)
    growth = found["peaks"][-1] - found["peaks"][9]
    assert growth < 8e6, found["peaks"][::10]
