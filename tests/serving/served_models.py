"""Small real models of the serving tests, as files and as rows of a real database."""

from __future__ import annotations

import json
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from truststram_lab.exceptions import TrustStramException
from truststram_lab.learning.network import Network, expected_shapes
from truststram_lab.learning.weights import encode, sha256_hex
from truststram_lab.preprocessing import TableEncoder
from truststram_lab.preprocessing.encoder import encoded_width
from truststram_lab.schemas.registry import Architecture, DenseLayer
from truststram_lab.schemas.serving import Prediction, PredictResponse
from truststram_lab.schemas.tables import Column, ColumnStatistics, Signature, Statistics
from truststram_lab.server.serving.interface import Answer, Question, ServedVersion
from truststram_lab.server.serving.local import LocalBackend
from truststram_lab.server.stores.ids import new_id

BINARY = Signature(
    columns=[
        Column(name="age", kind="numeric"),
        Column(name="dose", kind="numeric", nullable=True),
        Column(name="smoker", kind="boolean"),
        Column(name="ward", kind="categorical", categories=["icu", "north", "south"]),
    ],
    target="outcome",
    classes=["died", "lived"],
    positive_class="died",
)

MANY = Signature(
    columns=[Column(name=f"x{i}", kind="numeric") for i in range(14)],
    target="kind",
    classes=["a", "b", "c"],
    positive_class=None,
)


def statistics_of(signature: Signature) -> Statistics:
    columns = []
    for i, column in enumerate(signature.columns):
        missing = 7 if column.nullable else 0
        if column.kind == "categorical":
            n = len(column.categories)
            counts = [100 // n + (1 if k < 100 % n else 0) for k in range(n)]
            columns.append(
                ColumnStatistics(name=column.name, count=100, missing=0, category_counts=counts)
            )
        else:
            columns.append(
                ColumnStatistics(
                    name=column.name,
                    count=100 - missing,
                    missing=missing,
                    mean=0.4 + i,
                    variance=0.2 + i,
                )
            )
    return Statistics(rows=100, sites=5, columns=columns)


def architecture_of(signature: Signature) -> Architecture:
    outputs = 1 if signature.positive_class else len(signature.classes)
    return Architecture(
        inputs=encoded_width(signature),
        layers=[DenseLayer(units=8, activation="relu"), DenseLayer(units=outputs)],
    )


def weights_of(architecture: Architecture, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    state = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in expected_shapes(architecture).items()
    }
    return encode(state)


def version_of(folder: Path, *, signature: Signature = BINARY, seed: int = 0) -> ServedVersion:
    architecture = architecture_of(signature)
    body = weights_of(architecture, seed)
    path = folder / f"{sha256_hex(body)}.safetensors"
    path.write_bytes(body)
    return ServedVersion(
        id=f"ver_{signature.target}_{seed}",
        label=f"{signature.target}:{seed + 1}",
        weights=path,
        weights_sha256=sha256_hex(body),
        architecture=architecture,
        signature=signature,
        statistics=statistics_of(signature),
    )


def rows_of(signature: Signature, count: int, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        row: dict = {}
        for column in signature.columns:
            if column.kind == "categorical":
                row[column.name] = column.categories[int(rng.integers(len(column.categories)))]
            elif column.kind == "boolean":
                row[column.name] = bool(rng.integers(2))
            else:
                row[column.name] = float(rng.normal() * 2)
            if column.nullable and i % 3 == 2:
                row[column.name] = None
        rows.append(row)
    return rows


def network_of(version: ServedVersion) -> tuple[Network, TableEncoder]:
    from truststram_lab.learning.weights import decode

    state, _ = decode(version.weights.read_bytes())
    network = Network(version.architecture, state, version.signature)
    return network, TableEncoder(version.signature, version.statistics)


def in_process(version: ServedVersion, rows: list[dict]) -> np.ndarray:
    network, encoder = network_of(version)
    return network.probabilities(encoder.encode_rows(rows))


@dataclass
class Pending:
    """A request that is with a backend."""

    future: Future[Answer]

    def result(self, timeout_s: float) -> list[Prediction]:
        answer = self.future.result(timeout_s)
        if answer.status != 200:
            raise TrustStramException.from_problem(json.loads(answer.body), answer.status)
        found = list(PredictResponse.model_validate_json(answer.body).predictions)
        assert len(found) == answer.rows
        return found

    def probabilities(self, timeout_s: float) -> np.ndarray:
        return np.array([list(p.probabilities.values()) for p in self.result(timeout_s)])


def ask(backend: LocalBackend, version: ServedVersion, rows: list[dict], **options) -> Pending:
    body = json.dumps({"data": rows, **options}).encode()
    question = Question(body, new_id("pred"), time.monotonic())
    return Pending(backend.predict(version, question))
