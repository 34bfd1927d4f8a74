"""Trained estimators of the serving tests, stored as the registry stores them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from truststram_lab.learning.weights import sha256_hex
from truststram_lab.models import MLModel
from truststram_lab.preprocessing import DataProcessor
from truststram_lab.schemas.tables import Column, Signature
from truststram_lab.server.serving.interface import Conversion, ServedVersion
from truststram_lab.server.serving.local import LocalBackend


def mixed_table(rows: int, seed: int = 0) -> pd.DataFrame:
    """Numbers, flags and texts, each with gaps, and two awkward names."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 90, rows).astype(float),
            "dose": rng.normal(5, 2, rows),
            "smoker": rng.integers(0, 2, rows).astype(bool).astype(object),
            'ward "100%"': rng.choice(["icu", "north", "süd"], rows),
        }
    )
    frame.loc[frame.index % 7 == 3, "dose"] = np.nan
    frame.loc[frame.index % 11 == 5, "smoker"] = None
    return frame


def target_of(frame: pd.DataFrame, kind: str) -> pd.Series:
    score = frame["dose"].fillna(4) + 0.05 * frame["age"] + (frame['ward "100%"'] == "icu")
    if kind == "regression":
        return pd.Series(score * 1000 + 0.25, name="cost")
    if kind == "three":
        return pd.Series(np.digitize(score, [6, 9]), name="grade").map({0: "a", 1: "b%", 2: "c"})
    return pd.Series(np.where(score > 7.5, "died", "lived"), name="outcome")


def trained(algorithm: str, kind: str, **hyperparameters: object) -> tuple[MLModel, pd.DataFrame]:
    frame = mixed_table(300)
    processor = DataProcessor(task="regression" if kind == "regression" else None)
    x, y = processor.fit_transform(frame, target_of(frame, kind))
    return MLModel(algorithm, hyperparameters).fit(x, y), mixed_table(60, seed=1)


def signature_of(model: MLModel) -> Signature:
    """As the registry describes the model."""
    assert model.processor is not None
    if model.processor.signature is not None:
        return model.processor.signature
    return Signature(
        columns=model.processor.columns, target=model.processor.target, task="regression"
    )


def plain_signature(width: int, classes: list[str]) -> Signature:
    columns = [Column(name=f"f{place}", kind="numeric") for place in range(width)]
    if not classes:
        return Signature(columns=columns, target="y", task="regression")
    positive = classes[-1] if len(classes) == 2 else None
    return Signature(columns=columns, target="y", classes=classes, positive_class=positive)


def stored(folder: Path, body: bytes, signature: Signature, runtime: str) -> ServedVersion:
    path = folder / sha256_hex(body)
    path.write_bytes(body)
    return ServedVersion(
        id=f"ver_{sha256_hex(body)[:8]}_{runtime}",
        label="icu:1",
        weights=path,
        weights_sha256=sha256_hex(body),
        architecture=None,
        signature=signature,
        statistics=None,
        runtime=runtime,
    )


def native(folder: Path, model: MLModel) -> ServedVersion:
    body = model.save(folder / "saved").read_bytes()
    return stored(folder, body, signature_of(model), "sklearn")


def served(
    backend: LocalBackend, folder: Path, version: ServedVersion
) -> tuple[ServedVersion, Conversion]:
    """What a deployment would serve, and why."""
    found = backend.convert(version)
    if found.content is None:
        return version, found
    return stored(folder, found.content, version.signature, "onnx"), found


def other_id(version: ServedVersion, id: str) -> ServedVersion:
    return replace(version, id=id)


def rows_of_table(frame: pd.DataFrame) -> list[dict]:
    rows = frame.astype(object).where(frame.notna(), None).to_dict(orient="records")
    return [{k: v.item() if hasattr(v, "item") else v for k, v in row.items()} for row in rows]
