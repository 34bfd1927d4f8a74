"""Which method explains which model, and why another does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from truststram_lab.exceptions import InvalidInputError, nearest

from .adapter import Adapter, is_module
from .games import EXACT_PLAYERS, Attribution, exact, permutations
from .interfaces import Floats
from .linear import Front, coefficients, column_front
from .rows import Rows

__all__ = ["METHODS", "Method", "MethodOptions", "choose"]

#: Evaluations of the model for one row up to which all coalitions are enumerated by default.
_EXACT_EVALUATIONS = 2**EXACT_PLAYERS * 128

_INTERVENTIONAL = (
    "Each number is how much the column adds to the {space} when it changes from the background "
    "rows' values to this row's, averaged over all orders of changing the columns"
)
#: Identifier -> name for people, and what a number says.
METHODS: dict[str, tuple[str, str]] = {
    "linear": (
        "Linear model, closed form",
        _INTERVENTIONAL + " (Shapley values; for a linear model the coefficient times the "
        "distance from the background's mean, exactly).",
    ),
    "tree_interventional": (
        "Exact Shapley values of trees",
        _INTERVENTIONAL + " (interventional Shapley values, exactly, from the trees themselves).",
    ),
    "tree_path": (
        "Path-dependent Shapley values of trees",
        "Each number is how much the column adds to the {space}; where a column is absent, the "
        "trees are followed as the training rows went (path-dependent Shapley values, exactly). "
        "A column that the trees do not use can only get 0.",
    ),
    "deeplift": (
        "DeepLIFT",
        "Each number is the column's share of the difference in the {space} between this row and "
        "the background rows, passed back through the network in proportion to each unit's "
        "change, and averaged over the background (DeepLIFT, Rescale rule).",
    ),
    "expected_gradients": (
        "Expected gradients",
        "Each number is the gradient of the {space} along the ways from the background rows to "
        "this row, times the way, averaged (expected gradients). It is sampled; the standard "
        "error is given.",
    ),
    "exact": (
        "Exact Shapley values",
        _INTERVENTIONAL + " (interventional Shapley values; all coalitions were evaluated).",
    ),
    "permutation": (
        "Sampled Shapley values",
        _INTERVENTIONAL + " (interventional Shapley values, estimated from antithetic "
        "permutations; the standard error is given).",
    ),
}


@dataclass(frozen=True)
class MethodOptions:
    """How much is spent.

    Args:
        samples: walks there and back a row, or points on the ways of expected gradients.
        seed: of what is sampled.
    """

    samples: int
    seed: int


@dataclass(frozen=True)
class Method:
    """A method ready for rows: its identifier, and rows -> what it found."""

    name: str
    run: Callable[[Rows], Attribution]
    rows_at_once: int


class _No(Exception):
    """Why a method does not apply to a model."""


def choose(name: str, adapter: Adapter, background: Rows | None, options: MethodOptions) -> Method:
    """The method of that name, or for ``auto`` the best of those that apply.

    Raises:
        InvalidInputError: it does not exist or does not apply; says which do.
    """
    if name != "auto" and name not in METHODS:
        choices = ["auto", *METHODS]
        close = nearest(name, choices)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise InvalidInputError(
            f"method={name!r} is unknown{hint}; use one of {', '.join(choices)}.",
            field="method",
            choices=close or choices,
        )
    if name == "auto":
        for candidate in METHODS:
            if candidate in ("exact", "tree_path") and not _cheap(candidate, background):
                continue
            try:
                return _MAKERS[candidate](adapter, background, options)
            except _No:
                continue
        raise _need_background(adapter)
    try:
        return _MAKERS[name](adapter, background, options)
    except _No as reason:
        fitting = [other for other in METHODS if _applies(other, adapter, background, options)]
        raise InvalidInputError(
            f"method={name!r} does not apply to {adapter.name}: {reason}; "
            f"use {' or '.join(map(repr, ['auto', *fitting]))}.",
            field="method",
            choices=["auto", *fitting],
        ) from None


def _cheap(candidate: str, background: Rows | None) -> bool:
    if candidate == "tree_path":
        return background is None
    return background is not None and (
        background.width <= EXACT_PLAYERS
        and 2**background.width * len(background) <= _EXACT_EVALUATIONS
    )


def _applies(name: str, adapter: Adapter, background: Rows | None, options: MethodOptions) -> bool:
    try:
        _MAKERS[name](adapter, background, options)
    except _No:
        return False
    return True


def _need_background(adapter: Adapter) -> InvalidInputError:
    return InvalidInputError(
        f"Explaining {adapter.name} needs to know what an absent column is; pass "
        "background_data=, such as 100 typical rows.",
        field="background_data",
    )


def _background(background: Rows | None) -> Rows:
    if background is None:
        raise _No("it needs background_data")
    return background


def _front(adapter: Adapter, rows: Rows) -> tuple[Front, Floats]:
    """The last estimator's front, and the inputs of some rows."""
    if not hasattr(adapter.model, "predict"):
        raise _No("it is a function")
    front = column_front(adapter.model, rows.width, rows.names)
    if front is None:
        raise _No("its steps mix columns")
    try:
        inputs = front.encode(rows)
    except InvalidInputError as error:
        raise _No(str(error).rstrip(".")) from None
    if inputs.shape[1] != len(front.owner):
        raise _No("its steps mix columns")
    return front, inputs


def _probes(background: Rows) -> Rows:
    """Background rows and, of numbers, points beside them, to see what kind of function it is."""
    few = background.take(slice(0, 48))
    if few.numbers is None:
        return few
    beside = few.numbers[:16] * 1.25 + np.linspace(-0.5, 0.5, few.width)
    rows = Rows(few.names, np.concatenate([few.numbers, beside]))
    if few.frame is None:
        return rows
    import pandas as pd

    return Rows(few.names, rows.numbers, pd.DataFrame(rows.numbers, columns=few.frame.columns))


def _linear(adapter: Adapter, background: Rows | None, _options: MethodOptions) -> Method:
    known = _background(background)
    if not hasattr(getattr(adapter.model, "steps", [(0, adapter.model)])[-1][1], "coef_"):
        raise _No("it has no coefficients")
    probes = _probes(known)
    front, inputs = _front(adapter, probes)
    outputs = adapter.native(probes.native())
    coef = coefficients(front, inputs, outputs) if len(probes) > 1 else None
    if coef is None:
        raise _No(f"its {adapter.output} is not linear in its columns")
    scaled = coef @ adapter.readout
    mean = front.encode(known).mean(axis=0)
    base = adapter(known).mean(axis=0)

    def run(rows: Rows) -> Attribution:
        by_input = (front.encode(rows) - mean)[:, :, None] * scaled
        return Attribution(front.gather(by_input, rows.width), base)

    return Method("linear", run, max(1, 4_000_000 // max(1, scaled.size)))


def _trees(
    adapter: Adapter, background: Rows | None, _options: MethodOptions, *, path: bool
) -> Method:
    from .tree_models import read_trees
    from .trees import TreeGame

    model = getattr(adapter.model, "steps", [(0, adapter.model)])[-1][1]
    trees = read_trees(model) if hasattr(model, "predict") else None
    if trees is None:
        raise _No("its trees cannot be read (categorical splits, or no ensemble of trees)")
    known = None if path and background is None else _background(background)
    front = column_front(adapter.model, *_shape(adapter, known))
    if front is None:
        raise _No("its steps mix columns")
    offset = np.zeros(trees.value.shape[1])
    inputs = None
    if known is not None:
        probes = _probes(known)
        _, seen = _front(adapter, probes)
        native = adapter.native(probes.native())
        if native.shape[1] != trees.value.shape[1]:
            raise _No(f"its {adapter.output} is not the sum of its trees")
        rest = native - trees.outputs(seen)
        offset = np.median(rest, axis=0)
        if np.abs(rest - offset).max() > 1e-4 * (1.0 + np.abs(native).max()):
            raise _No(f"its {adapter.output} is not the sum of its trees")
        inputs = front.encode(known)
    game = TreeGame(trees, front.owner, _shape(adapter, known)[0], None if path else inputs)
    readout = adapter.readout

    def run(rows: Rows) -> Attribution:
        inputs = front.encode(rows)
        start = offset
        if known is None:  # the rows themselves say what the trees start from
            few = slice(0, 32)
            start = np.median(
                adapter.native(rows.take(few).native()) - trees.outputs(inputs[few]), axis=0
            )
        return Attribution(game.explain(inputs) @ readout, (game.base + start) @ readout)

    return Method("tree_path" if path else "tree_interventional", run, 4096)


def _shape(adapter: Adapter, known: Rows | None) -> tuple[int, tuple[str, ...]]:
    if known is not None:
        return known.width, known.names
    width = getattr(adapter.model, "n_features_in_", None)
    if width is None:
        raise _No("it needs background_data")
    named = getattr(adapter.model, "feature_names_in_", range(width))
    return int(width), tuple(str(name) for name in named)


def _deeplift(adapter: Adapter, background: Rows | None, _options: MethodOptions) -> Method:
    if not is_module(adapter.model):
        raise _No("it is no torch module")
    from .torch_modules import deeplift, read_chain, squashed

    known = _background(background)
    chain = read_chain(adapter.model)
    if chain is None:
        raise _No("only sequences of linear layers and element-wise functions have rules")
    if adapter.output == "probability" and squashed(adapter.model) is None:
        if adapter.readout.shape[0] > 1:
            raise _No("a softmax has no rule; explain the margin")
        import torch

        chain.steps.append(("function", torch.nn.Sigmoid(), None))
    baselines, base = known.matrix(), adapter(known).mean(axis=0)

    def run(rows: Rows) -> Attribution:
        values = deeplift(chain, rows.matrix(), baselines, adapter.readout)
        return Attribution(values, base)

    return Method("deeplift", run, 1024)


def _expected_gradients(
    adapter: Adapter, background: Rows | None, options: MethodOptions
) -> Method:
    if not is_module(adapter.model):
        raise _No("it is no torch module")
    from .torch_modules import expected_gradients, squashed

    known = _background(background)
    squash = adapter.output == "probability" and squashed(adapter.model) is None
    baselines, base = known.matrix(), adapter(known).mean(axis=0)
    rng = np.random.default_rng(options.seed)

    def run(rows: Rows) -> Attribution:
        values, error = expected_gradients(
            adapter.model,
            rows.matrix(),
            baselines,
            adapter.readout,
            squash=squash,
            samples=max(2, options.samples),
            rng=rng,
        )
        return Attribution(values, base, error)

    return Method("expected_gradients", run, 1024)


def _exact(adapter: Adapter, background: Rows | None, _options: MethodOptions) -> Method:
    known = _background(background)
    if known.width > EXACT_PLAYERS:
        raise _No(f"it has {known.width} columns, and all coalitions of {EXACT_PLAYERS} are many")
    return Method("exact", partial(exact, adapter, background=known), 16)


def _permutation(adapter: Adapter, background: Rows | None, options: MethodOptions) -> Method:
    known = _background(background)
    rng = np.random.default_rng(options.seed)
    run = partial(
        permutations, adapter, background=known, pairs=max(2, options.samples // 2), rng=rng
    )
    return Method("permutation", run, 64)


_MAKERS: dict[str, Callable[[Adapter, Rows | None, MethodOptions], Method]] = {
    "linear": _linear,
    "tree_interventional": partial(_trees, path=False),
    "tree_path": partial(_trees, path=True),
    "deeplift": _deeplift,
    "expected_gradients": _expected_gradients,
    "exact": _exact,
    "permutation": _permutation,
}
