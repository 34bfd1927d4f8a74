"""Runs on a real platform, of a model small enough to add up by hand, without torch."""

from __future__ import annotations

import os

import numpy as np

from truststram_lab.client import TrustStramClient
from truststram_lab.federated.participation import Made
from truststram_lab.learning import weights
from truststram_lab.learning.statistics import local_moments
from truststram_lab.schemas.federation import CreateRun, LocalTraining
from truststram_lab.schemas.registry import Architecture, DenseLayer
from truststram_lab.schemas.tables import Column, Signature

SIGNATURE = Signature(
    columns=[Column(name="dose", kind="numeric")],
    target="ill",
    classes=["no", "yes"],
    positive_class="yes",
)
ARCHITECTURE = Architecture(inputs=1, layers=[DenseLayer(units=1)])
ROWS = 10


def start_state() -> weights.State:
    return {
        "layers.0.weight": np.ones((1, 1), np.float32),
        "layers.0.bias": np.zeros(1, np.float32),
    }


def open_run(client: TrustStramClient, name: str, sites: list[str], rounds: int):
    """The run, and each site's token."""
    client.federations.create(name)
    tokens = {one.participant: one.token for one in client.federations.invite(name, sites)}
    plan = CreateRun(
        model=name,
        federation=name,
        sites=sites,
        rounds=rounds,
        local=LocalTraining(epochs=1),
        architecture=ARCHITECTURE,
        signature=SIGNATURE,
        initial_weights_sha256=client.blobs.put(weights.encode(start_state())),
    )
    return client.runs.create(plan), tokens


class NoisySite:
    """Adds fresh noise to every update, and counts its rounds in its own state."""

    def objections(self, terms):
        return []

    def perform(self, terms, model, tell, own):
        metadata = {"sample_count": str(ROWS), "metrics": "{}"}
        if terms.kind == "statistics":
            moments = local_moments({"dose": np.arange(float(ROWS))}, SIGNATURE)
            return Made(weights.encode(moments, metadata))
        tell("local_training")
        base, _ = weights.decode(model)
        noise = np.random.default_rng(int.from_bytes(os.urandom(8), "little"))
        update = {name: noise.normal(size=a.shape).astype(a.dtype) for name, a in base.items()}
        count = int(own("rounds") or b"0") + 1
        return Made(weights.encode(update, metadata), {"rounds": str(count).encode()})
