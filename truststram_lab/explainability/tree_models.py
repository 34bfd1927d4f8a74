"""Tree ensembles of any library as arrays, read from the trained models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .interfaces import Floats

__all__ = ["Trees", "read_trees"]

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

#: Cells of decisions computed at once.
_CHUNK_CELLS = 4_000_000


@dataclass(frozen=True)
class Trees:
    """All nodes of all trees, one after the other.

    Args:
        feature: (nodes,), -1 at a leaf.
        threshold: a row goes left where its value is at most this (below it if ``strict``).
        left, right: (nodes,), the nodes that follow.
        missing_left: where a missing value goes.
        cover: training rows (or weight) that passed.
        value: (nodes, outputs), what a leaf adds to the outputs.
        roots: (trees,).
        single: values are rounded to float32 before they are compared.
        missing_zero: (nodes,), a missing value counts as 0.
    """

    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    missing_left: Flags
    cover: Floats
    value: Floats
    roots: Ints
    single: bool = False
    strict: bool = False
    missing_zero: Flags | None = None

    def decisions(self, inputs: Floats) -> NDArray[np.uint8]:
        """(nodes, rows): 1 where a row goes left, 0 where right; leaves are 0."""
        columns = np.ascontiguousarray(inputs.T.astype(np.float32) if self.single else inputs.T)
        found = np.zeros((len(self.feature), inputs.shape[0]), dtype=np.uint8)
        inner = np.flatnonzero(self.feature >= 0)
        missing = np.isnan(columns).any()
        at_once = max(1, _CHUNK_CELLS // max(inputs.shape[0], 1))
        for start in range(0, len(inner), at_once):
            nodes = inner[start : start + at_once]
            values: Any = columns[self.feature[nodes]]
            if missing and self.missing_zero is not None:
                zero = self.missing_zero[nodes, None] & np.isnan(values)
                values = np.where(zero, 0.0, values)
            bounds = self._bounds[nodes, None]
            left = values < bounds if self.strict else values <= bounds
            if missing:
                left |= np.isnan(values) & self.missing_left[nodes, None]
            found[nodes] = left
        return found

    @cached_property
    def _bounds(self) -> Any:
        if not self.single:
            return self.threshold
        # float32 values against float64 thresholds: v <= t is v <= (t rounded down).
        return self.threshold.astype(np.float32) if self.strict else _rounded_down(self.threshold)

    def outputs(self, inputs: Floats) -> Floats:
        """What the trees add up to, (rows, outputs), by walking them."""
        going = self.decisions(inputs)
        rows = np.arange(inputs.shape[0])
        total = np.zeros((inputs.shape[0], self.value.shape[1]))
        for root in self.roots:
            node = np.full(len(rows), root)
            while (self.feature[node] >= 0).any():
                left = going[node, rows] == 1
                follow = np.where(left, self.left[node], self.right[node])
                node = np.where(self.feature[node] >= 0, follow, node)
            total += self.value[node]
        return total


def _rounded_down(bounds: Floats) -> NDArray[np.float32]:
    single = bounds.astype(np.float32)
    return np.where(single > bounds, np.nextafter(single, np.float32(-np.inf)), single)


@dataclass
class _Part:
    """One tree while it is read; children are local, ``output`` is None for all of them."""

    feature: Any
    threshold: Any
    left: Any
    right: Any
    missing_left: Any
    cover: Any
    value: Any
    missing_zero: Any = None


def read_trees(model: Any) -> Trees | None:
    """The ensemble of a trained model; None if it is none that can be read exactly.

    Known: scikit-learn's decision trees, forests and both gradient boostings, XGBoost and
    LightGBM; without categorical splits and linear leaves.
    """
    package = type(model).__module__.split(".")[0]
    readers: dict[str, Callable[[Any], Trees | None]] = {
        "sklearn": _sklearn,
        "xgboost": _xgboost,
        "lightgbm": _lightgbm,
    }
    reader = readers.get(package)
    return None if reader is None else reader(model)


def _joined(parts: Iterable[_Part], **semantics: Any) -> Trees:
    listed = list(parts)
    sizes = [len(part.feature) for part in listed]
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)

    def together(field: str, kind: Any = np.float64) -> Any:
        return np.concatenate([np.asarray(getattr(part, field), dtype=kind) for part in listed])

    shift = np.repeat(roots, sizes)
    zero = together("missing_zero", bool) if listed[0].missing_zero is not None else None
    return Trees(
        feature=together("feature", np.int64),
        threshold=together("threshold"),
        left=together("left", np.int64) + shift,
        right=together("right", np.int64) + shift,
        missing_left=together("missing_left", bool),
        cover=together("cover"),
        value=together("value"),
        roots=roots,
        missing_zero=zero,
        **semantics,
    )


def _sklearn(model: Any) -> Trees | None:
    kind = type(model).__name__
    if kind.startswith("HistGradientBoosting"):
        return _histogram(model)
    if kind.startswith("GradientBoosting"):
        wide = model.estimators_.shape[1]
        return _joined(
            (
                _sklearn_part(tree.tree_, model.learning_rate, k, wide)
                for stage in model.estimators_
                for k, tree in enumerate(stage)
            ),
            single=True,
        )
    if hasattr(model, "tree_"):
        return _joined([_sklearn_part(model.tree_, 1.0)], single=True)
    trees = getattr(model, "estimators_", None)
    forests = ("RandomForest", "ExtraTrees")
    if kind.startswith(forests) and not kind.endswith("Embedding") and trees:
        return _joined((_sklearn_part(t.tree_, 1.0 / len(trees)) for t in trees), single=True)
    return None


def _sklearn_part(tree: Any, factor: float, output: int | None = None, wide: int = 1) -> _Part:
    leaf = tree.children_left < 0
    value = np.array(tree.value, dtype=np.float64)
    if tree.max_n_classes > 1:
        value = value[:, 0, :]
        value = value / value.sum(axis=1, keepdims=True)
    else:
        value = value[:, :, 0]
    if output is not None:
        single, value = value, np.zeros((len(value), wide))
        value[:, output] = single[:, 0]
    return _Part(
        feature=np.where(leaf, -1, tree.feature),
        threshold=tree.threshold,
        left=np.where(leaf, 0, tree.children_left),
        right=np.where(leaf, 0, tree.children_right),
        missing_left=tree.missing_go_to_left,
        cover=tree.weighted_n_node_samples,
        value=value * factor,
    )


def _histogram(model: Any) -> Trees | None:
    if model.is_categorical_ is not None:
        return None
    wide = len(model._predictors[0])
    parts = []
    for stage in model._predictors:
        for k, predictor in enumerate(stage):
            nodes = predictor.nodes
            leaf = nodes["is_leaf"].astype(bool)
            value = np.zeros((len(nodes), wide))
            value[:, k] = nodes["value"]
            parts.append(
                _Part(
                    feature=np.where(leaf, -1, nodes["feature_idx"].astype(np.int64)),
                    threshold=nodes["num_threshold"],
                    left=nodes["left"],
                    right=nodes["right"],
                    missing_left=nodes["missing_go_to_left"],
                    cover=nodes["count"],
                    value=value,
                )
            )
    return _joined(parts)


def _xgboost(model: Any) -> Trees | None:
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    saved = json.loads(bytes(booster.save_raw("json")))
    learner = saved["learner"]["gradient_booster"]
    if learner["name"] != "gbtree":
        return None
    trees, outputs = learner["model"]["trees"], learner["model"]["tree_info"]
    wide = max(outputs) + 1
    best = getattr(model, "best_iteration", None) if _stopped_early(model) else None
    if best is not None:
        last = learner["model"]["iteration_indptr"][best + 1]
        trees, outputs = trees[:last], outputs[:last]
    parts = []
    for tree, output in zip(trees, outputs, strict=True):
        if tree.get("categories_nodes") or int(tree["tree_param"]["size_leaf_vector"]) > 1:
            return None
        left = np.array(tree["left_children"])
        leaf = left < 0
        bounds = np.array(tree["split_conditions"], dtype=np.float32)
        value = np.zeros((len(left), wide))
        value[:, output] = np.where(leaf, bounds, 0.0)
        parts.append(
            _Part(
                feature=np.where(leaf, -1, tree["split_indices"]),
                threshold=bounds,
                left=np.where(leaf, 0, left),
                right=np.where(leaf, 0, tree["right_children"]),
                missing_left=tree["default_left"],
                cover=tree["sum_hessian"],
                value=value,
            )
        )
    return _joined(parts, single=True, strict=True)


def _stopped_early(model: Any) -> bool:
    try:
        return model.best_iteration is not None
    except AttributeError:
        return False


def _lightgbm(model: Any) -> Trees | None:
    booster = model.booster_ if hasattr(model, "booster_") else model
    dumped = booster.dump_model()
    wide = int(dumped["num_tree_per_iteration"])
    trees = dumped["tree_info"]
    parts = []
    for place, tree in enumerate(trees):
        part = _lightgbm_part(tree["tree_structure"], place % wide, wide)
        if part is None:
            return None
        parts.append(part)
    return _joined(parts)


def _lightgbm_part(root: dict[str, Any], output: int, wide: int) -> _Part | None:
    nodes: list[tuple[int, float, int, int, bool, float, float, bool]] = []

    def visit(node: dict[str, Any]) -> int | None:
        place = len(nodes)
        if "split_feature" not in node:
            count = float(node.get("leaf_count", 1.0))
            leaf_value = float(node["leaf_value"])
            nodes.append((-1, 0.0, 0, 0, False, count, leaf_value, False))
            return place
        kind = node["missing_type"]
        if node["decision_type"] != "<=" or kind == "Zero":
            return None
        nodes.append((0, 0.0, 0, 0, False, 0.0, 0.0, False))
        left, right = visit(node["left_child"]), visit(node["right_child"])
        if left is None or right is None:
            return None
        nodes[place] = (
            int(node["split_feature"]),
            float(node["threshold"]),
            left,
            right,
            bool(node["default_left"]),
            float(node["internal_count"]),
            0.0,
            kind == "None",
        )
        return place

    if visit(root) is None:
        return None
    feature, threshold, left, right, missing_left, cover, leaf, zero = zip(*nodes, strict=True)
    value = np.zeros((len(nodes), wide))
    value[:, output] = leaf
    return _Part(feature, threshold, left, right, missing_left, cover, value, zero)
