"""Anything that predicts, as one function: rows in, one number a named output out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from truststram_lab.exceptions import InvalidInputError, nearest

from .interfaces import Floats
from .rows import Rows, is_frame

__all__ = ["Adapter", "Output", "adapt", "column_names", "held_by", "is_module", "processed"]

#: ``margin``: log-odds or logits; ``probability``; ``value``: what a regression predicts.
Output = Literal["margin", "probability", "value"]
_OUTPUTS = ("margin", "probability")


@dataclass(frozen=True)
class Adapter:
    """A model's outputs, and how they were obtained.

    Args:
        model: as given, or what a wrapper holds (its ``estimator``).
        native: rows as the model takes them -> its own outputs, (n, own).
        readout: (own, outputs); explained outputs are ``native(rows) @ readout``.
        classes: what each output speaks of; empty for a value.
        output: the space of the outputs.
        framed: the model wants DataFrames.
    """

    model: Any
    native: Callable[[Any], Floats]
    readout: Floats
    classes: tuple[str, ...]
    output: Output
    framed: bool = False

    def __call__(self, rows: Rows) -> Floats:
        """Explained outputs of rows, float64 (n, outputs)."""
        found = self.native(rows.native())
        return found @ self.readout

    @property
    def width(self) -> int:
        """How many outputs are explained."""
        return int(self.readout.shape[1])

    @property
    def name(self) -> str:
        """The model's class, as messages name it."""
        return type(self.model).__name__


def is_module(model: Any) -> bool:
    """Whether it is a torch module; torch is not loaded for asking."""
    return any(
        kind.__module__ == "torch.nn.modules.module" and kind.__name__ == "Module"
        for kind in type(model).__mro__
    )


def processed(model: Any, data: Any) -> Any:
    """``data`` as the model's estimator takes it: a DataFrame goes through its ``processor``."""
    if is_frame(data) and hasattr(model, "processor") and hasattr(model, "estimator"):
        return data if model.processor is None else model.processor.transform(data)
    return data


def held_by(model: Any) -> Any:
    """What a wrapper holds as ``estimator``; of anything else, the model itself."""
    held = getattr(model, "estimator", None)
    # scikit-learn's meta-estimators and forests clone what they hold, and keep it untrained.
    return held if hasattr(held, "predict") and not hasattr(model, "estimator_") else model


def column_names(model: Any) -> list[str] | None:
    """The column names that a model remembers from its training."""
    for attribute in ("feature_names_in_", "feature_names", "feature_name_"):
        found = getattr(model, attribute, None)
        if found is not None and not callable(found) and len(found):
            return [str(name) for name in found]
    return None


def adapt(
    model: Any,
    *,
    output: str | None = None,
    class_names: Sequence[str] | None = None,
    positive_class: str | None = None,
    probe: Rows | None = None,
) -> Adapter:
    """What of the model is explained.

    Args:
        model: scikit-learn's interface (predict, predict_proba, decision_function), a torch
            module, a callable, or an object that holds one of these as ``estimator``.
        output: None: the margin where the model has one, else the probability, else the value.
        class_names: names in the order of the model's outputs.
        positive_class: which of two classes a single number points to; None: the second.
        probe: a few rows to learn the number of outputs from, where the model does not say.

    Raises:
        InvalidInputError: nothing predicts, or the output or class does not exist.
    """
    if output is not None and output not in _OUTPUTS:
        raise InvalidInputError(
            f"output={output!r} is unknown; use {' or '.join(map(repr, _OUTPUTS))}.",
            field="output",
            choices=list(_OUTPUTS),
        )
    held = held_by(model)
    if held is not model:
        return adapt(
            held,
            output=output,
            class_names=class_names or getattr(model, "class_names", None),
            positive_class=positive_class or getattr(model, "positive_class", None),
            probe=probe,
        )
    if is_module(model):
        return _module(model, output, class_names, positive_class, probe)
    if hasattr(model, "predict"):
        return _estimator(model, output, class_names, positive_class)
    if callable(model):
        return _callable(model, output, class_names, positive_class, probe)
    raise InvalidInputError(
        f"A {type(model).__name__} does not predict; give a model with predict or predict_proba, "
        "a torch module, or a function of rows.",
        field="model",
    )


def _floats(found: Any) -> Floats:
    if hasattr(found, "detach"):
        found = found.detach().cpu().numpy()
    values = np.asarray(found, dtype=np.float64)
    return values[:, None] if values.ndim == 1 else values.reshape(len(values), -1)


def _estimator(
    model: Any, output: str | None, class_names: Sequence[str] | None, positive: str | None
) -> Adapter:
    framed = getattr(model, "feature_names_in_", None) is not None
    known = getattr(model, "classes_", None)
    if known is None or isinstance(known, list):
        if class_names is None and not hasattr(model, "predict_proba"):
            if output is not None:
                raise InvalidInputError(
                    f"{type(model).__name__} predicts a value, which has no {output}; leave "
                    "output= out.",
                    field="output",
                )
            return _values(model, framed)
        if known is not None:
            raise InvalidInputError(
                f"{type(model).__name__} predicts {len(known)} targets at once; explain one of "
                "them: pass a function that returns its probabilities.",
                field="model",
            )
    labels = [str(label) for label in known] if known is not None else list(class_names or [])
    names = _checked_names(class_names, labels)
    margin = _margin_of(model)
    if output is None:
        output = "margin" if margin is not None else "probability"
    if output == "margin":
        if margin is None:
            raise InvalidInputError(
                f"{type(model).__name__} has no margin; use output='probability'.",
                field="output",
                choices=["probability"],
            )
        own = 1 if len(names) == 2 else len(names)
        return _classes(model, margin, names, own, "margin", framed, positive)
    if not hasattr(model, "predict_proba"):
        raise InvalidInputError(
            f"{type(model).__name__} has no probabilities; use output='margin'.",
            field="output",
            choices=["margin"],
        )
    return _classes(
        model,
        lambda x: _floats(model.predict_proba(x)),
        names,
        len(names),
        "probability",
        framed,
        positive,
    )


def _values(model: Any, framed: bool) -> Adapter:
    outputs = int(getattr(model, "n_outputs_", 1) or 1)
    coefficients = np.ndim(getattr(model, "coef_", 0.0))
    if coefficients == 2:
        outputs = len(model.coef_)
    return Adapter(model, lambda x: _floats(model.predict(x)), np.eye(outputs), (), "value", framed)


def _margin_of(model: Any) -> Callable[[Any], Floats] | None:
    package = type(model).__module__.split(".")[0]
    if package == "xgboost":
        return lambda x: _floats(model.predict(x, output_margin=True))
    if package == "lightgbm":
        return lambda x: _floats(model.predict(x, raw_score=True))
    if hasattr(model, "decision_function"):
        return lambda x: _floats(model.decision_function(x))
    return None


def _checked_names(given: Sequence[str] | None, own: Sequence[str]) -> list[str]:
    if given is None:
        return list(own)
    if len(given) != len(own):
        raise InvalidInputError(
            f"class_names has {len(given)} names and the model {len(own)} classes: "
            f"{', '.join(own[:10])}.",
            field="class_names",
        )
    return [str(name) for name in given]


def _classes(
    model: Any,
    native: Callable[[Any], Floats],
    names: Sequence[str],
    own: int,
    output: Output,
    framed: bool,
    positive: str | None,
) -> Adapter:
    """Two classes are one output, towards the positive one; more are an output each."""
    index = positive_index(names, positive)
    if len(names) == 2:
        if own == 1:
            readout = np.array([[1.0 if index != 0 else -1.0]])
        else:
            readout = np.eye(2)[:, [1 if index is None else index]]
        chosen = (names[1 if index is None else index],)
        return Adapter(model, native, readout, chosen, output, framed)
    if index is not None:
        return Adapter(
            model, native, np.eye(len(names))[:, [index]], (names[index],), output, framed
        )
    return Adapter(model, native, np.eye(len(names)), tuple(names), output, framed)


def positive_index(names: Sequence[str], positive: str | None) -> int | None:
    """The place of the positive class; None where none was named.

    Raises:
        InvalidInputError: it is no class, with those that are.
    """
    if positive is None:
        return None
    if str(positive) not in names:
        raise InvalidInputError(
            f"{positive!r} is not a class of this model; choose one of {', '.join(names[:10])}.",
            field="positive_class",
            choices=nearest(str(positive), names) or list(names[:3]),
        )
    return list(names).index(str(positive))


def _probed(native: Callable[[Any], Floats], probe: Rows | None, what: str) -> int:
    if probe is None:
        raise InvalidInputError(
            f"Pass background_data=, a few typical rows: a {what} does not say how many outputs "
            "it has.",
            field="background_data",
        )
    return int(native(probe.take(slice(0, 2)).native()).shape[1])


def _module(
    model: Any,
    output: str | None,
    class_names: Sequence[str] | None,
    positive: str | None,
    probe: Rows | None,
) -> Adapter:
    from .torch_modules import module_outputs, squashed

    ends = squashed(model)
    if ends is not None and output == "margin":
        raise InvalidInputError(
            f"{type(model).__name__} ends in {ends}, so its output is a probability; use "
            "output='probability', or pass the module without its last layer.",
            field="output",
            choices=["probability"],
        )
    squash = output == "probability" and ends is None
    native = module_outputs(model, squash=squash)
    own = _probed(native, probe, "torch module")
    space: Output = "probability" if squash or ends is not None else "margin"
    return _outputs(model, native, own, space, class_names, positive)


def _callable(
    model: Any,
    output: str | None,
    class_names: Sequence[str] | None,
    positive: str | None,
    probe: Rows | None,
) -> Adapter:
    def native(rows: Any) -> Floats:
        found = _floats(model(rows))
        if len(found) != len(rows):
            raise InvalidInputError(
                f"The function returned {len(found)} outputs for {len(rows)} rows; it must return "
                "an array with one row for each.",
                field="model",
            )
        return found

    own = _probed(native, probe, "function")
    space: Output = "value"
    if output is not None:
        space = "margin" if output == "margin" else "probability"
    elif class_names is not None and probe is not None:
        found = native(probe.take(slice(0, 32)).native())
        if found.min() >= 0.0 and found.max() <= 1.0:
            space = "probability"
    return _outputs(model, native, own, space, class_names, positive)


def _outputs(
    model: Any,
    native: Callable[[Any], Floats],
    own: int,
    space: Output,
    class_names: Sequence[str] | None,
    positive: str | None,
) -> Adapter:
    """One number and two names: the number points to the second; else a name an output."""
    if class_names is None:
        names = [] if own == 1 else [f"output {k}" for k in range(own)]
        if positive is None or not names:
            return Adapter(model, native, np.eye(own), tuple(names), space)
    else:
        names = [str(name) for name in class_names]
    if own == 1 and len(names) == 2:
        if positive_index(names, positive) == 0 and space == "probability":
            # 1 - p is -(p - 1): a readout that only changes the sign.
            return Adapter(model, lambda x: native(x) - 1.0, -np.eye(1), (names[0],), space)
        return _classes(model, native, names, 1, space, False, positive)
    if len(names) != own:
        raise InvalidInputError(
            f"class_names has {len(names)} names and the model {own} outputs.",
            field="class_names",
        )
    if own == 2 and space == "margin":
        # Logits of two classes: their difference is the log-odds, but both are outputs here.
        index = positive_index(names, positive)
        if index is None:
            return Adapter(model, native, np.eye(2), tuple(names), space)
        return Adapter(model, native, np.eye(2)[:, [index]], (names[index],), space)
    return _classes(model, native, names, own, space, False, positive)
