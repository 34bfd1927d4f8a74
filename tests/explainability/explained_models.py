"""Small networks and tables of the explainability tests, with nothing of the package in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from truststram_lab.schemas.tables import Column, ColumnStatistics, Signature, Statistics

FUNCTIONS = {
    "identity": lambda z: z,
    "relu": lambda z: np.where(z > 0, z, 0.0),
    "tanh": np.tanh,
    "sigmoid": lambda z: 1.0 / (1.0 + np.exp(-z)),
}


@dataclass(frozen=True)
class Dense:
    weight: np.ndarray
    bias: np.ndarray
    activation: str = "identity"


@dataclass(frozen=True)
class Net:
    layers: Sequence[Dense]

    def logits(self, x: np.ndarray) -> np.ndarray:
        for layer in self.layers:
            x = FUNCTIONS[layer.activation](x @ layer.weight.T + layer.bias)
        return x


@dataclass(frozen=True)
class Table:
    """Groups of encoded inputs and their baseline."""

    groups: list[tuple[str, slice]]
    mean: np.ndarray = field(repr=False)

    def baseline(self) -> np.ndarray:
        return self.mean


def random_net(
    rng: np.random.Generator, sizes: Sequence[int], activation: str, scale: float = 1.0
) -> Net:
    layers = []
    for i, (inputs, units) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        layers.append(
            Dense(
                rng.normal(size=(units, inputs)) * scale,
                rng.normal(size=units),
                "identity" if last else activation,
            )
        )
    return Net(layers)


def table_of(rng: np.random.Generator, widths: Sequence[int]) -> Table:
    ends = np.cumsum(widths)
    groups = [
        (f"c{i}", slice(int(end - w), int(end)))
        for i, (w, end) in enumerate(zip(widths, ends, strict=True))
    ]
    return Table(groups, rng.normal(size=int(ends[-1])) * 0.3)


def signature_of(columns: int, classes: Sequence[str], positive: str | None) -> Signature:
    return Signature(
        columns=[Column(name=f"c{i}", kind="numeric") for i in range(columns)],
        target="y",
        classes=list(classes),
        positive_class=positive,
    )


def statistics_of(columns: int, rows: int = 426) -> Statistics:
    return Statistics(
        rows=rows,
        sites=5,
        columns=[
            ColumnStatistics(name=f"c{i}", count=rows, missing=0, mean=0.5 * i, variance=1.0)
            for i in range(columns)
        ],
    )
