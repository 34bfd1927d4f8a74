"""``simulate`` under differential privacy: what it spends, where that is kept, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from truststram_lab import simulate
from truststram_lab.exceptions import InvalidInputError, PrivacyBudgetError
from truststram_lab.federated.owner_ledger import OwnerLedger
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.learning.privacy.planner import plan
from truststram_lab.schemas.privacy import Budget, BudgetKey, Unit
from truststram_lab.verbs import session as sessions
from truststram_lab.verbs.simulation import SimulationResult


def _pairs(clients: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    w = rng.normal(size=(6, 3))
    drawn = [rng.normal(size=(40, 6)) for _ in range(clients)]
    return [(x, (x @ w).argmax(axis=1)) for x in drawn]


def _small() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))


def _ledger(found: SimulationResult, unit: Unit) -> OwnerLedger:
    return OwnerLedger(BudgetKey(dataset_sha256=found.record["data_sha256"], unit=unit))


def test_rows_are_hidden_within_the_budget_and_the_ledger_has_every_round(
    platform_home: Path,
) -> None:
    found = simulate(_small, _pairs(10), rounds=4, dp=2.0, delta=1e-4, personal="ditto",
                     batch_size=10, register=False)  # fmt: skip
    assert found.run is None
    # Thirty rows of each client train: a third of them in a step, three steps a round.
    expected = plan(2.0, 1e-4, 4, 10, rows=30, batch_size=10, epochs=1)
    assert found.privacy.epsilon == pytest.approx(expected.statement.epsilon)
    assert found.privacy.epsilon == pytest.approx(2.0, rel=1e-3)
    entries = _ledger(found, "record").entries()
    assert [entry.state for entry in entries] == ["released"] * 4
    uses = [use for entry in entries for use in entry.uses]
    assert account(uses, 1e-4).epsilon == pytest.approx(found.privacy.epsilon)
    text = " ".join(found.card().text.split())
    assert "Record-level differential privacy with epsilon 2" in text
    assert "how inputs were scaled is outside epsilon" in text
    assert not found.record["repeatable"]
    assert found.record["options"]["dp"] == 2.0
    assert found.clients[0]["personal_accuracy"] is not None
    # Its noise is secret: the same call gives another model, and spends on the same rows.
    again = simulate(_small, _pairs(10), rounds=4, dp=2.0, delta=1e-4, batch_size=10,
                     register=False)  # fmt: skip
    assert again.record["result_sha256"] != found.record["result_sha256"]
    assert again.privacy.before == pytest.approx(found.privacy.epsilon)
    assert again.privacy.together > again.privacy.epsilon


def test_clients_are_hidden_by_a_secret_cohort_also_on_the_platform(signed_in: Path) -> None:
    found = simulate(_small, _pairs(30), rounds=3, dp=1.0, dp_unit="client", fraction=0.4,
                     delta=1e-3)  # fmt: skip
    client = sessions.require("testing").client
    run = client.runs.get(found.run)
    assert run.statement.trust == "host sees every update"
    assert run.plan.privacy.cohort_rate == 0.4
    expected = account([run.plan.privacy.use(3)], 1e-3).epsilon
    assert found.privacy.epsilon == run.report.privacy.epsilon == pytest.approx(expected)
    assert all(one.metrics == {} for one in run.report.history)
    assert all(one.metrics == {} for one in client.runs.updates(found.run).items)
    assert len(_ledger(found, "client").entries()) == 3
    stored = client.blobs.get(run.result_sha256)
    assert len(stored) > 0


def test_the_limit_of_the_rows_refuses_before_anything_trains(platform_home: Path) -> None:
    heard: list[str] = []
    found = simulate(_small, _pairs(6), rounds=1, dp=1.0, delta=1e-4)
    _ledger(found, "record").set_limit(Budget(epsilon=1.5, delta=1e-4))
    with pytest.raises(PrivacyBudgetError):
        simulate(_small, _pairs(6), rounds=1, dp=1.5, delta=1e-4, progress=heard.append)
    assert not heard


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strategy": "scaffold"}, "scaffold do not go together"),
        ({"strategy": "median", "dp_unit": "client"}, "median do not go together"),
        ({"personal": "fedper:head=2"}, "choose ditto"),
        ({"filters": ["sparsification:top_k=0.5"], "dp_unit": "client"}, "leave the filters out"),
        ({"filters": ["gaussian_noise:sigma=1"]}, "plans its own noise"),
        ({"dp": -1.0}, "is no epsilon"),
        ({"delta": 0.5}, "to be shown in full"),
        ({"dp_unit": "sites"}, "no unit of privacy"),
    ],
)
def test_what_cannot_be_right_is_refused(
    platform_home: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        simulate(_small, _pairs(6), rounds=1, **{"dp": 1.0, **options})


def test_a_module_that_mixes_rows_cannot_hide_one(platform_home: Path) -> None:
    normed = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5))
    with pytest.raises(InvalidInputError, match="use GroupNorm instead"):
        simulate(normed, _pairs(6), rounds=1, dp=1.0)
