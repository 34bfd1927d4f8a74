"""An estimator as ONNX, if it converts and answers the same.

It runs in a process of its own that ends afterwards. What is compared are rows like those of the
training, as far as they are known, and, for trees, rows on both sides of every split: there a
threshold that was rounded to 32 bits the wrong way would send a row down the other branch.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from .native import Opened
from .onnx_model import METADATA, OnnxModel

__all__ = ["NotConvertedError", "convert", "rows_at_splits"]

#: Rows like those of the training that are compared.
_SAMPLES = 2000

#: The most that two probabilities, or two values in units of the largest one, may differ: what
#: 32 bits leave after sums of thousands of terms.
TOLERANCE = 1e-5

#: Rows of one comparison.
_CHUNK = 20_000

#: Splits beyond which a forest is not compared; its own scikit-learn serves it.
_MOST_SPLITS = 400_000


class NotConvertedError(Exception):
    """Why the estimator stays with scikit-learn, as the rest of a sentence."""


def convert(found: Opened) -> tuple[bytes, str]:
    """The file for onnxruntime, and what was compared.

    Raises:
        NotConvertedError: it cannot be converted, or does not answer the same.
    """
    content = _converted(found)
    model = OnnxModel(content)
    width = len(found.names)
    samples = _samples(found, np.random.default_rng(0))
    largest = _compare(found, model, samples, "on rows like those of the training")
    splits = 0
    for rows in rows_at_splits(found.estimator, samples):
        assert rows.shape[1] == width
        largest = max(largest, _compare(found, model, rows, "beside a split"))
        splits += len(rows) // 2
    at_splits = f" and on both sides of {splits:,} splits" if splits else ""
    return content, (
        f"{type(found.estimator).__name__} was converted to ONNX, which answers the same on "
        f"{len(samples):,} rows{at_splits} (largest difference {largest:.1e})"
    )


def _converted(found: Opened) -> bytes:
    try:
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType
    except ImportError:
        raise NotConvertedError("the package skl2onnx is not installed") from None
    logging.getLogger("skl2onnx").setLevel(logging.ERROR)
    options = {"zipmap": False} if hasattr(found.estimator, "predict_proba") else None
    try:
        made = to_onnx(
            found.estimator,
            initial_types=[("rows", FloatTensorType([None, len(found.names)]))],
            options={id(found.estimator): options} if options else None,
        )
    except Exception as error:
        name = type(found.estimator).__name__
        raise NotConvertedError(f"skl2onnx cannot convert {name}") from error
    about = made.metadata_props.add()
    about.key = METADATA
    about.value = json.dumps(
        {
            "names": found.names,
            "transform": None if found.transform is None else found.transform.document(),
            "places": found.places,
            "classes": len(found.signature.classes),
        }
    )
    return bytes(made.SerializeToString())


def _samples(found: Opened, rng: np.random.Generator) -> np.ndarray:
    """Rows in the estimator's numbers: drawn from the training's bins, else from a normal."""
    width = len(found.names)
    if len(found.bins) != width:
        return 3.0 * rng.normal(size=(_SAMPLES, width))
    out = np.empty((_SAMPLES, width))
    for place, column in enumerate(found.bins):
        out[:, place] = _drawn(column, rng)
    return out


def _drawn(column: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    """Numbers like those of a training column, of which its bins are known."""
    shares = np.asarray(column["shares"], dtype=np.float64)
    if len(column["values"]):
        values = np.array([0.0 if value is None else value for value in column["values"]], float)
        return rng.choice(values, size=_SAMPLES, p=shares / shares.sum())
    low, high = np.asarray(column["low"], float), np.asarray(column["high"], float)
    kept = shares[: len(low)]
    bins = rng.choice(len(low), size=_SAMPLES, p=kept / kept.sum())
    mean, spread = np.asarray(column["mean"], float), np.asarray(column["spread"], float)
    return np.clip(rng.normal(mean[bins], spread[bins]), low[bins], high[bins])


def _compare(found: Opened, model: OnnxModel, rows: np.ndarray, where: str) -> float:
    """The largest difference, in probability or in units of the largest value."""
    wanted = np.asarray(found.run(rows), dtype=np.float64).reshape(len(rows), -1)
    got = model(rows).reshape(len(rows), -1)
    if wanted.shape != got.shape:
        raise NotConvertedError("its conversion to ONNX answers with another number of outputs")
    unit = 1.0 if found.signature.classes else max(float(np.abs(wanted).max()), 1e-300)
    largest = float(np.abs(wanted - got).max()) / unit
    if not largest <= TOLERANCE:
        raise NotConvertedError(
            f"its conversion to ONNX answers differently {where} (by {largest:.2g})"
        )
    return largest


# ---------------------------------------------------------------------- trees


def rows_at_splits(estimator: Any, samples: np.ndarray) -> Iterator[np.ndarray]:
    """Rows that reach each split of each tree, in pairs: the last 32-bit number that goes left,
    and the first that goes right. In pieces; nothing where there are no trees.

    Raises:
        NotConvertedError: there are too many to compare, or the trees are inside of something
            that changes the rows before.
    """
    trees = _trees(estimator)
    if trees is None:
        return
    total = sum(int((tree.children_left >= 0).sum()) for tree in trees)
    if total > _MOST_SPLITS:
        raise NotConvertedError(f"its {total:,} splits are too many to compare one by one")
    waiting: list[np.ndarray] = []
    for number, tree in enumerate(trees):
        base = samples[number % len(samples)]
        for pair in _pairs(tree, base):
            waiting.append(pair)
            if 2 * len(waiting) >= _CHUNK:
                yield np.concatenate(waiting)
                waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _trees(estimator: Any) -> list[Any] | None:
    """The trees of an estimator of scikit-learn's; None where it has none."""
    if hasattr(estimator, "tree_"):
        return [estimator.tree_]
    if hasattr(estimator, "steps") or hasattr(estimator, "transformers_"):
        raise NotConvertedError("it changes its rows before they reach what was trained on them")
    members = getattr(estimator, "estimators_", None)
    if members is None:
        return None
    inner = list(np.ravel(np.array(members, dtype=object)))
    if not all(hasattr(one, "tree_") for one in inner):
        raise NotConvertedError("it consists of estimators that are not compared split by split")
    return [one.tree_ for one in inner]


def _pairs(tree: Any, base: np.ndarray) -> Iterator[np.ndarray]:
    """For each split of a tree two rows (2, features) that reach it and part there."""
    # scikit-learn compares a 32-bit number with a 64-bit threshold.
    start = base.astype(np.float32)
    waiting: list[tuple[int, np.ndarray]] = [(0, start)]
    while waiting:
        node, row = waiting.pop()
        if tree.children_left[node] < 0:
            continue
        feature = int(tree.feature[node])
        last_left, first_right = _neighbours(float(tree.threshold[node]))
        left, right = row.copy(), row.copy()
        left[feature], right[feature] = last_left, first_right
        yield np.stack([left, right]).astype(np.float64)
        # Deeper down the row stays on its side, and as near to the base as that allows.
        left[feature] = min(row[feature], last_left)
        right[feature] = max(row[feature], first_right)
        waiting += [(int(tree.children_left[node]), left), (int(tree.children_right[node]), right)]


def _neighbours(threshold: float) -> tuple[np.float32, np.float32]:
    """The largest 32-bit number at most ``threshold``, and the next one above."""
    near = np.float32(threshold)
    if float(near) > threshold:
        return np.nextafter(near, np.float32(-np.inf)), near
    return near, np.nextafter(near, np.float32(np.inf))
