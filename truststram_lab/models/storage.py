"""A fitted model as one file, by skops: data and known types, never code."""

from __future__ import annotations

import importlib
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from ..exceptions import ConfigurationError, InvalidInputError, NotFoundError

__all__ = [
    "estimator_bytes",
    "estimator_state",
    "is_state",
    "loaded",
    "read_state",
    "state_bytes",
    "write_state",
]

FORMAT = "truststram-lab model 1"

_KEYS = frozenset(
    {
        "algorithm", "bins", "classes", "estimator", "feature_names", "format",
        "hyperparameters", "processor", "task",
    }
)  # fmt: skip

#: Private and compiled types that scikit-learn's own estimators consist of. skops leaves
#: them to the caller; each only holds arrays and numbers.
TRUSTED = frozenset(
    {
        "numpy.dtype",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
    }
)


def write_state(path: str | Path, state: dict[str, Any]) -> Path:
    """Write ``state`` as a whole or not at all.

    Raises:
        InvalidInputError: it holds a type that could not be read again, by its name.
        ConfigurationError: skops is not installed.
    """
    data = state_bytes(state)
    path = Path(path)
    if not path.parent.is_dir():
        raise NotFoundError(f"There is no folder {str(path.parent)!r}; create it first.")
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return path


def state_bytes(state: dict[str, Any]) -> bytes:
    """``state`` as what ``write_state`` writes; raises as that does."""
    return estimator_bytes({"format": FORMAT, **state})


def estimator_bytes(estimator: Any) -> bytes:
    """An estimator, or whatever else consists of known types, as skops writes it.

    Raises:
        InvalidInputError: it holds a type that could not be read again, by its name.
        ConfigurationError: skops is not installed.
    """
    skops = _skops()
    data: bytes = skops.dumps(estimator)
    _refuse_unknown(skops.get_untrusted_types(data=data), "This model")
    return data


def read_state(path: str | Path) -> dict[str, Any]:
    """What ``write_state`` wrote; nothing in the file is executed.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: it is no such file, or holds unknown types, which are named.
        ConfigurationError: skops is not installed.
    """
    _skops()
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"There is no file {str(path)!r}; give what model.save(path) wrote.")
    what = repr(path.name)
    state = loaded(path.read_bytes(), what)
    if not is_state(state):
        raise _foreign(what)
    found: dict[str, Any] = state
    return found


def estimator_state(data: bytes, what: str) -> dict[str, Any]:
    """The state of a model, or a bare estimator as if it had been one without a processor.

    Args:
        data: what skops wrote.
        what: names it in the sentence of an error.

    Raises:
        InvalidInputError: it is neither, or holds unknown types, which are named.
    """
    found = loaded(data, what)
    if is_state(found):
        state: dict[str, Any] = found
        return state
    if not hasattr(found, "predict") or not hasattr(found, "n_features_in_"):
        raise _foreign(what)
    names = getattr(found, "feature_names_in_", None)
    numbers = [f"f{place}" for place in range(found.n_features_in_)]
    return {
        "estimator": found,
        "feature_names": numbers if names is None else [str(name) for name in names],
        "classes": None,
        "processor": None,
        "bins": [],
    }


def is_state(found: Any) -> bool:
    """Whether it is what an ``MLModel`` consists of."""
    return isinstance(found, dict) and found.get("format") == FORMAT and found.keys() == _KEYS


def loaded(data: bytes, what: str) -> Any:
    """What skops wrote; ``what`` names it in the sentence of an error."""
    skops = _skops()
    try:
        _refuse_unknown(skops.get_untrusted_types(data=data), what)
        return skops.loads(data, trusted=sorted(TRUSTED))
    except InvalidInputError:
        raise
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError) as error:
        raise _foreign(what) from error


def _foreign(what: str) -> InvalidInputError:
    return InvalidInputError(
        f"{what} is not a model that model.save(path) wrote (pickle and joblib files are "
        "never read); train the model again and save it.",
        field="path",
    )


def _refuse_unknown(found: list[str], what: str) -> None:
    unknown = sorted(set(found) - TRUSTED)
    if unknown:
        raise InvalidInputError(
            f"{what} holds the type {unknown[0]}"
            f"{f' and {len(unknown) - 1} more' if len(unknown) > 1 else ''}, which is not among "
            "those that are known to be only data, so it is refused; use one of scikit-learn's "
            "algorithms with plain hyperparameters.",
            field="path",
        )


def _skops() -> Any:
    try:
        return importlib.import_module("skops.io")
    except ModuleNotFoundError as error:
        if error.name not in ("skops", "skops.io"):
            raise
        raise ConfigurationError(
            "Saving and loading models needs the package skops, which is not installed; run "
            "pip install 'truststram-lab[models]'."
        ) from None
