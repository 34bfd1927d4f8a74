"""``simulate``: a federation of any torch module in this kernel."""

from __future__ import annotations

import json
import signal
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from truststram_lab import simulate
from truststram_lab.exceptions import InvalidInputError

Pairs = list[tuple[np.ndarray, np.ndarray]]


def pairs(clients: int, rows: int = 24, seed: int = 0) -> Pairs:
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(6, 3))
    drawn = [rng.normal(size=(rows + place, 6)) for place in range(clients)]
    return [(x, (x @ w).argmax(axis=1)) for x in drawn]


def model(outputs: int = 3) -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, outputs)
    ).double()


def states_differ(left: torch.nn.Module, right: torch.nn.Module) -> float:
    return max(
        float((a - b).abs().max())
        for a, b in zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "function"])
def test_one_client_with_full_batches_trains_as_a_plain_loop(optimizer: str) -> None:
    (x, y), start, rate = pairs(1)[0], model(), 0.05

    def maker(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, lr=rate)

    given: Any = maker if optimizer == "function" else {"name": optimizer, "lr": rate}
    found = simulate(start, [(x, y)], rounds=4, epochs=3, batch_size=len(x), optimizer=given,
                     holdout=0, dtype="float64")  # fmt: skip
    plain = model()
    kinds: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    for _ in range(4):
        make = maker if optimizer == "function" else lambda p: kinds[optimizer](p, lr=rate)
        stepper = make(plain.parameters())
        for _ in range(3):
            stepper.zero_grad()
            functional.cross_entropy(plain(torch.tensor(x)), torch.tensor(y)).backward()
            stepper.step()
    assert states_differ(found.module, plain) < 1e-9
    assert states_differ(start, model()) == 0


@pytest.mark.parametrize(
    "strategy",
    ["fedavg", "fedprox:mu=0.5", "scaffold", "fedavgm", "fedadam", "median", "trimmed_mean",
     "krum:f=1"],
)  # fmt: skip
def test_both_backends_agree_under_every_strategy(strategy: str) -> None:
    found = [
        simulate(
            model(),
            pairs(6),
            strategy,
            3,
            epochs=2,
            dtype="float64",
            backend=backend,
            fraction=0.9,
            drop=0.1,
            personal="ditto:lambda=0.3",
        )
        for backend in ("loop", "vectorized")
    ]
    one, other = found
    assert states_differ(one.module, model()) > 1e-3
    assert states_differ(one.module, other.module) < 1e-9
    assert states_differ(one.personal_module(2), other.personal_module(2)) < 1e-9
    assert one.record["options"]["strategy"] == other.record["options"]["strategy"]


def test_a_run_is_repeated_from_its_record_to_the_bit() -> None:
    strategy = "fedprox:mu=0.1234567891"
    first = simulate(lambda: model().float(), pairs(7), strategy, 3, seed=5, drop=0.2,
                     stragglers=0.3, epochs=2, hostile="0.2:scale=1.234567891", optimizer="adam",
                     filters=["gradient_clip:max_norm=1.0", "sparsification:top_k_percent=50"],
                     personal="ditto:lambda=0.1234567891")  # fmt: skip
    written = json.loads(json.dumps(first.record["options"]))
    again = simulate(lambda: model().float(), pairs(7), **written)
    assert again.record == first.record | {"why": again.record["why"]}
    assert again.history == first.history
    assert again.clients == first.clients
    assert first.record["result_sha256"] != first.record["start_sha256"]


def test_a_federation_that_flips_all_labels_trains_on_flipped_ones() -> None:
    flipped = [(x, 2 - y) for x, y in pairs(3)]
    found = simulate(model(), pairs(3), rounds=2, holdout=0, dtype="float64",
                     hostile="1:label_flip", backend="loop")  # fmt: skip
    honest = simulate(model(), flipped, rounds=2, holdout=0, dtype="float64", backend="loop")
    assert states_differ(found.module, honest.module) == 0
    # They are scored on their true labels all the same.
    assert found.history[-1]["loss"] != honest.history[-1]["loss"]


def test_sites_of_a_table_are_scored_one_by_one() -> None:
    x, y = load_digits(return_X_y=True)
    frame = pd.DataFrame(x[:600], columns=[f"p{i}" for i in range(64)]).assign(digit=y[:600])
    found = simulate(lambda: torch.nn.Linear(64, 10), 8, rounds=3, data=frame, target="digit",
                     split="dirichlet:0.3")  # fmt: skip
    table = found.to_frame()
    assert list(table.index) == list(range(8))
    gap = (table["local_accuracy"] - table["global_accuracy"]).fillna(0)
    assert set(found.losing) == set(table.index[gap > 0])
    assert [line["round"] for line in found.history] == [1, 2, 3]
    text = found.card().text
    assert found.record["options"]["split"] == "dirichlet:0.3"
    for place in found.losing[:3]:
        assert f"client {place} (" in text


def test_a_head_of_its_own_never_reaches_the_global_model() -> None:
    start = model()
    found = simulate(start, pairs(4), rounds=3, personal="fedper:head=2", dtype="float64")
    now, before = found.module.state_dict(), start.state_dict()
    assert torch.equal(now["2.weight"], before["2.weight"])
    assert not torch.equal(now["0.weight"], before["0.weight"])
    own = found.personal_module(1).state_dict()
    assert torch.equal(own["0.weight"], now["0.weight"])
    assert not torch.equal(own["2.weight"], now["2.weight"])


def test_an_interrupt_returns_what_was_done() -> None:
    def progress(text: str) -> None:
        if text.startswith("round 3"):
            signal.raise_signal(signal.SIGINT)

    whole = simulate(model(), pairs(3), rounds=2, dtype="float64", backend="loop")
    found = simulate(
        model(), pairs(3), rounds=9, dtype="float64", backend="loop", progress=progress
    )
    assert found.status == "stopped"
    assert found.history == whole.history
    assert states_differ(found.module, whole.module) == 0
    assert "2 rounds of 9, stopped" in found.card().text
    again = simulate(model(), pairs(3), **found.record["options"])
    assert states_differ(found.module, again.module) == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"clients": [*pairs(2), (np.zeros((0, 6)), np.zeros(0, int))]}, "Client 2: .*0 rows"),
        ({"clients": []}, "no clients"),
        ({"model": model(2)}, "label 2, but the model's last layer has 2 outputs"),
        ({"model": torch.nn.Linear(4, 3)}, r"does not take rows of shape \(6,\)"),
        ({"strategy": "fedawg"}, "fedavg"),
        ({"strategy": "krum:f=2"}, "needs .* updates in a round, and there are 3 clients"),
        ({"strategy": "scaffold", "optimizer": torch.optim.RMSprop}, "learning rate"),
        ({"optimizer": "adan"}, "did you mean 'adam'"),
        ({"clients": 3}, "number of clients and one table"),
        ({"rounds": 0}, "rounds=0"),
        ({"personal": "dito"}, "did you mean 'ditto'"),
        ({"personal": "fedper:head=nine"}, "nine"),
        ({"filters": ["gradient_clop"]}, "gradient_clip"),
        ({"model": 3}, "int, not a torch module"),
        ({"clients": [(np.zeros((3, 6)), np.array(["a", "b", "a"]))]}, "targets of client 0"),
        ({"holdout": 1.0}, "holdout=0"),
    ],
)
def test_bad_input_is_refused_before_anything_trains(change: dict[str, Any], sentence: str) -> None:
    heard: list[str] = []
    options: dict[str, Any] = {"model": model(), "clients": pairs(3), "progress": heard.append}
    with pytest.raises(InvalidInputError, match=sentence):
        simulate(**(options | change))
    assert not heard


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_ditto_beats_the_global_and_the_local_models_on_skewed_digits(seed: int) -> None:
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    clients = []
    for _ in range(10):
        # No row twice at a client: none of those that score may be among those trained on.
        counts = rng.multinomial(140, rng.dirichlet(np.full(10, 0.3)))
        rows = np.concatenate(
            [rng.permutation(np.flatnonzero(y == digit))[:n] for digit, n in enumerate(counts)]
        )
        clients.append((x[rows] / 16, y[rows]))
    # Steps on whole sites, as the paper's rates ask for; a firm pull, as rows are few.
    found = simulate(lambda: torch.nn.Linear(64, 10), clients, rounds=20, epochs=5,
                     batch_size=140, optimizer={"name": "sgd", "lr": 0.5}, holdout=0.7,
                     personal="ditto:lambda=0.5", seed=seed)  # fmt: skip
    means = found.to_frame().mean()
    assert means["personal_accuracy"] > means["global_accuracy"]
    assert means["personal_accuracy"] > means["local_accuracy"]
