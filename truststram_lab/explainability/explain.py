"""From a row and its network to the explanation that a card shows."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from truststram_lab.exceptions import InvalidInputError, nearest
from truststram_lab.schemas.serving import Background, Contribution, Explanation, Scalar
from truststram_lab.schemas.tables import Signature, Statistics

from .deeplift import deeplift_rescale
from .interfaces import EncoderLike, Floats, NetworkLike
from .shapley import exact_shapley

__all__ = ["EXACT_COLUMNS", "background_of", "explain_rows"]

#: Up to this many original columns all 2**n coalitions are enumerated.
EXACT_COLUMNS = 10


def background_of(statistics: Statistics) -> Background:
    """The point that contributions start from: the federation's means, named by their hash."""
    canonical = json.dumps(
        statistics.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return Background(
        kind="federated_means",
        sha256=hashlib.sha256(canonical.encode()).hexdigest(),
        rows=statistics.rows,
    )


def explain_rows(
    network: NetworkLike,
    encoder: EncoderLike,
    rows_encoded: Floats,
    raw_rows: Sequence[Mapping[str, Any]],
    signature: Signature,
    statistics: Statistics,
    class_label: str | None = None,
) -> list[Explanation]:
    """What each original column adds to the output of each row, from the federated means.

    Exact Shapley values up to ``EXACT_COLUMNS`` columns, DeepLIFT (Rescale) beyond. A
    column's encoded inputs (one-hot, missing indicator) are one player, or are summed.

    Args:
        rows_encoded: (n, width), in the order of ``raw_rows``.
        raw_rows: the rows as people gave them, for the values shown.
        class_label: class to explain; None: the positive class of two, else the predicted.

    Raises:
        InvalidInputError: ``class_label`` is no class of the signature.
    """
    rows = np.asarray(rows_encoded, dtype=np.float64)
    if len(rows) == 0:
        return []
    baseline = np.asarray(encoder.baseline(), dtype=np.float64)
    logits = np.asarray(network.logits(rows), dtype=np.float64)
    base_logits = np.asarray(network.logits(baseline[None]), dtype=np.float64)
    explained = _explained_classes(logits, signature, class_label)
    readout = _readout(explained, signature)
    groups = [inputs for _, inputs in encoder.groups]

    method: Literal["exact_shapley", "deeplift"]
    if len(groups) <= EXACT_COLUMNS:
        method = "exact_shapley"
        widest = max(len(layer.bias) for layer in network.layers)
        phi = exact_shapley(network.logits, rows, baseline, groups, readout, widest=widest)
    else:
        method = "deeplift"
        by_input = deeplift_rescale(network.layers, rows, baseline, readout)
        phi = np.stack([by_input[:, inputs].sum(axis=1) for inputs in groups], axis=1)

    output = (logits * readout).sum(axis=1)
    base = (base_logits * readout).sum(axis=1)
    residual = output - base - phi.sum(axis=1)
    background = background_of(statistics)
    binary = signature.positive_class is not None
    names = [name for name, _ in encoder.groups]
    return [
        Explanation(
            method=method,
            meaning=_meaning(method, explained[i], binary),
            explained_class=explained[i],
            output_space="log_odds" if binary else "centred_logit",
            base_value=float(base[i]),
            output_value=float(output[i]),
            contributions=[
                Contribution(
                    feature=name, value=_scalar(raw.get(name)), contribution=float(phi[i, j])
                )
                for j, name in enumerate(names)
            ],
            residual=float(residual[i]),
            background=background,
        )
        for i, raw in enumerate(raw_rows)
    ]


def _explained_classes(logits: Floats, signature: Signature, class_label: str | None) -> list[str]:
    if class_label is None:
        if signature.positive_class is not None:
            return [signature.positive_class] * len(logits)
        return [signature.classes[k] for k in logits.argmax(axis=1)]
    if class_label not in signature.classes:
        close = nearest(class_label, signature.classes) or signature.classes[:3]
        raise InvalidInputError(
            f"{class_label!r} is not a class of this model, so it cannot be explained; "
            f"choose one of {', '.join(signature.classes[:10])}.",
            field="explain_class",
            choices=close,
        )
    return [class_label] * len(logits)


def _readout(explained: Sequence[str], signature: Signature) -> Floats:
    """(n, outputs) factors that turn logits into the output space of each row."""
    if signature.positive_class is not None:
        return np.array([[1.0 if c == signature.positive_class else -1.0] for c in explained])
    k = len(signature.classes)
    picked = np.array([signature.classes.index(c) for c in explained])
    readout: Floats = np.eye(k)[picked] - 1.0 / k
    return readout


def _meaning(method: str, explained: str, binary: bool) -> str:
    space = f"log-odds towards {explained}" if binary else f"centred logit of {explained}"
    if method == "exact_shapley":
        return (
            f"Each number is how much the column adds to the {space} when it changes from the "
            "federated mean to this row's value, averaged exactly over all orders of changing "
            "the columns (Shapley values)."
        )
    return (
        f"Each number is the column's share of the difference in the {space} between this row "
        "and the federated means, passed back through the network in proportion to each "
        "unit's change (DeepLIFT, Rescale rule)."
    )


def _scalar(value: Any) -> Scalar:
    """A JSON scalar: numpy's become Python's, a missing number becomes None."""
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, float) and not math.isfinite(plain):
        return None
    if plain is None or isinstance(plain, bool | int | float | str):
        return plain
    return str(plain)
