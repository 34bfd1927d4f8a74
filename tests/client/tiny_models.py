"""A model small enough to compute by hand."""

from __future__ import annotations

import numpy as np

from truststram_lab.client import TrustStramClient
from truststram_lab.learning import weights
from truststram_lab.schemas.federation import CreateRun, LocalTraining
from truststram_lab.schemas.registry import Architecture, CreateVersion, DenseLayer
from truststram_lab.schemas.tables import Column, ColumnStatistics, Signature, Statistics

SIGNATURE = Signature(
    columns=[Column(name="dose", kind="numeric")],
    target="ill",
    classes=["no", "yes"],
    positive_class="yes",
)
ARCHITECTURE = Architecture(inputs=1, layers=[DenseLayer(units=1)])
STATISTICS = Statistics(
    rows=100,
    sites=2,
    columns=[ColumnStatistics(name="dose", count=100, missing=0, mean=5.0, variance=4.0)],
)


def weights_file(slope: float, bias: float = 0.0, metadata: dict[str, str] | None = None) -> bytes:
    """The network ``logit = slope * (dose - 5) / 2 + bias``."""
    state = {
        "layers.0.weight": np.full((1, 1), slope, np.float32),
        "layers.0.bias": np.full(1, bias, np.float32),
    }
    return weights.encode(state, metadata)


def create_version(client: TrustStramClient, slope: float) -> CreateVersion:
    return CreateVersion(
        weights_sha256=client.blobs.put(weights_file(slope)),
        architecture=ARCHITECTURE,
        signature=SIGNATURE,
        statistics=STATISTICS,
    )


def plan(client: TrustStramClient, model: str, sites: list[str], rounds: int = 1) -> CreateRun:
    return CreateRun(
        model=model,
        federation=model,
        sites=sites,
        rounds=rounds,
        local=LocalTraining(epochs=1),
        architecture=ARCHITECTURE,
        signature=SIGNATURE,
        initial_weights_sha256=client.blobs.put(weights_file(1.0)),
    )
