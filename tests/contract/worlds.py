"""What has to be there before a story begins: a platform, models on it, an open round, files.

Each world is entered with a folder and gives the environment of the story's process. Everything
runs on loopback and ends with the world.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from truststram_lab import sandbox
from truststram_lab.client import TrustStramClient
from truststram_lab.learning import weights
from truststram_lab.learning.network import expected_shapes
from truststram_lab.learning.statistics import local_moments
from truststram_lab.preprocessing import encoded_width
from truststram_lab.schemas.federation import CreateRun, LocalTraining
from truststram_lab.schemas.registry import Architecture, CreateVersion, DenseLayer
from truststram_lab.schemas.tables import Column, ColumnStatistics, Signature, Statistics

__all__ = ["WORLDS"]

#: the documents' placeholders, each a key of this platform
_KEYS = ("your_api_key_here", "your_api_key")

_PLAIN = Signature(
    columns=[Column(name=name, kind="numeric") for name in ("feature1", "feature2")],
    target="label",
    classes=["no", "yes"],
    positive_class="yes",
)
_FRAUD = Signature(
    columns=[
        Column(name="transaction_amount", kind="numeric"),
        Column(name="merchant_category", kind="categorical", categories=["electronics", "food"]),
        Column(name="user_history.avg_transaction", kind="numeric"),
    ],
    target="fraud",
    classes=["no", "yes"],
    positive_class="yes",
)
_MODELS = {"model": _PLAIN, "fallback_model": _PLAIN, "fraud-detection-v2": _FRAUD}


@contextmanager
def _empty(folder: Path) -> Iterator[dict[str, str]]:
    """A home, and nothing in it."""
    home = folder / "home"
    try:
        yield {"TRUSTSTRAM_HOME": str(home), "TRUSTSTRAM_TOKEN_STORAGE": "memory"}
    finally:
        sandbox.stop(home)


@contextmanager
def _platform(folder: Path) -> Iterator[tuple[TrustStramClient, dict[str, str]]]:
    with (
        _empty(folder) as environment,
        _environment(environment),
        TrustStramClient(environment="sandbox") as client,
    ):
        yield client, {**environment, "TRUSTSTRAM_BASE_URL": client.base_url}


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    former = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


@contextmanager
def _models(folder: Path) -> Iterator[dict[str, str]]:
    """The documents' models are deployed, and their placeholders are keys."""
    with _platform(folder) as (client, environment):
        for name, signature in _MODELS.items():
            client.models.create(name)
            client.models.create_version(name, _version(client, signature))
            client.deployments.create(name)
        _let_in(folder / "home" / "platform.db")
        yield environment


@contextmanager
def _without_models(folder: Path) -> Iterator[dict[str, str]]:
    """A platform that lets the documents' placeholders in, and has no model yet."""
    with _platform(folder) as (_, environment):
        _let_in(folder / "home" / "platform.db")
        yield environment


def _version(client: TrustStramClient, signature: Signature) -> CreateVersion:
    architecture = Architecture(inputs=encoded_width(signature), layers=[DenseLayer(units=1)])
    rng = np.random.default_rng(0)
    state = {n: rng.normal(size=s).astype("f4") for n, s in expected_shapes(architecture).items()}
    columns = []
    for column in signature.columns:
        measured: dict[str, object] = {"mean": 1.0, "variance": 2.0}
        if column.kind == "categorical":
            measured = {"category_counts": [6, 4]}
        columns.append(ColumnStatistics(name=column.name, count=10, missing=0, **measured))
    return CreateVersion(
        weights_sha256=client.blobs.put(weights.encode(state)),
        architecture=architecture,
        signature=signature,
        statistics=Statistics(rows=10, sites=2, columns=columns),
    )


def _let_in(database: Path) -> None:
    """Make the documents' placeholders keys of the owner; only a key's digest is ever stored."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        [(owner, created_at)] = connection.execute(
            "select id, created_at from principals where role = 'owner'"
        ).fetchall()
        for key in _KEYS:
            connection.execute(
                "insert into credentials (id, principal_id, token_sha256, created_at) "
                "values (?, ?, ?, ?)",
                (f"crd_{key}", owner, hashlib.sha256(key.encode()).hexdigest(), created_at),
            )


@contextmanager
def _round(folder: Path) -> Iterator[dict[str, str]]:
    """A round is open for the one site of federation ``fed_456``."""
    signature = _PLAIN
    architecture = Architecture(inputs=encoded_width(signature), layers=[DenseLayer(units=1)])
    with _platform(folder) as (client, environment):
        client.federations.create("fed_456")
        [invited] = client.federations.invite("fed_456", ["site"])
        start = {n: np.zeros(s, "f4") for n, s in expected_shapes(architecture).items()}
        plan = CreateRun(
            model="icu",
            federation="fed_456",
            sites=["site"],
            rounds=2,
            local=LocalTraining(epochs=1),
            architecture=architecture,
            signature=signature,
            initial_weights_sha256=client.blobs.put(weights.encode(start)),
        )
        client.runs.create(plan)
        with client.participant(invited.token) as site:
            [found] = site.assignments()
            table = {column.name: np.arange(10.0) for column in signature.columns}
            body = weights.encode(local_moments(table, signature), {"sample_count": "10"})
            site.push(found.round_id, body)
            assert site.assignments(20)[0].kind == "training"
        yield {**environment, "SITE_TOKEN": invited.token, "TRUSTSTRAM_ENVIRONMENT": "sandbox"}


_SERVER = """
import sys, threading
import pandas as pd
from truststram_lab.federated import FederatedClient, FederatedLearningCoordinator
coordinator = FederatedLearningCoordinator(min_clients=3, min_fit_clients=3)
coordinator.create_model({"architecture": "neural_network", "layers": [
    {"type": "dense", "units": 8, "activation": "relu"},
    {"type": "dense", "units": 1, "activation": "sigmoid"}]})
others = [FederatedClient(f"other_{n}", sys.argv[1]) for n in range(2)]
threads = [threading.Thread(target=one.start) for one in others]
for thread in threads:
    thread.start()
coordinator.serve(rounds=2)
for thread in threads:
    thread.join(60)
    assert not thread.is_alive()
"""


@contextmanager
def _server(folder: Path) -> Iterator[dict[str, str]]:
    """A coordinator at the documented address, and two clients more."""
    with _empty(folder) as environment:
        _csv(folder / "other.csv", seed=1)
        command = [sys.executable, "-c", _SERVER, str(folder / "other.csv")]
        log = (folder / "server.log").open("w")
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=log, stderr=log
        )
        try:
            yield environment
            assert process.wait(60) == 0, (folder / "server.log").read_text()
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(30)
            log.close()


@contextmanager
def _files(folder: Path) -> Iterator[dict[str, str]]:
    """The three clients' files; afterwards the server has closed its ten rounds."""
    (folder / "data").mkdir()
    for place in range(3):
        _csv(folder / "data" / f"client_{place}_data.csv", seed=place)
    with _empty(folder) as environment:
        yield environment
        [database] = (folder / "home" / "federations").glob("*/platform.db")
        with contextlib.closing(sqlite3.connect(database)) as connection:
            rounds = connection.execute(
                "select count(*) from rounds where kind = 'training' and status = 'closed'"
            ).fetchall()
        assert rounds == [(10,)]


def _csv(path: Path, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(60, 3))
    frame = pd.DataFrame(x, columns=["a", "b", "c"]).assign(target=(x[:, 0] > 0) * 1)
    frame.to_csv(path, index=False)


WORLDS: dict[str, Callable[[Path], AbstractContextManager[dict[str, str]]]] = {
    "empty": _empty,
    "models": _models,
    "without models": _without_models,
    "round": _round,
    "server": _server,
    "files": _files,
}
