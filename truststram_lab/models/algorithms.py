"""Which estimator an algorithm's name stands for, and which hyperparameters it has."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from ..exceptions import ConfigurationError, InvalidInputError, nearest
from ..preprocessing.processor import Task

__all__ = ["ALGORITHMS", "check_hyperparameters", "estimator_class", "make_estimator"]

#: name: (module, class for classification, class for regression); None where there is none.
ALGORITHMS: dict[str, tuple[str, str | None, str | None]] = {
    "decision_tree": ("sklearn.tree", "DecisionTreeClassifier", "DecisionTreeRegressor"),
    "extra_trees": ("sklearn.ensemble", "ExtraTreesClassifier", "ExtraTreesRegressor"),
    "gradient_boosting": (
        "sklearn.ensemble",
        "GradientBoostingClassifier",
        "GradientBoostingRegressor",
    ),
    "hist_gradient_boosting": (
        "sklearn.ensemble",
        "HistGradientBoostingClassifier",
        "HistGradientBoostingRegressor",
    ),
    "lightgbm": ("lightgbm", "LGBMClassifier", "LGBMRegressor"),
    "linear_regression": ("sklearn.linear_model", None, "LinearRegression"),
    "logistic_regression": ("sklearn.linear_model", "LogisticRegression", None),
    "mlp": ("sklearn.neural_network", "MLPClassifier", "MLPRegressor"),
    "random_forest": ("sklearn.ensemble", "RandomForestClassifier", "RandomForestRegressor"),
    "ridge": ("sklearn.linear_model", None, "Ridge"),
    "xgboost": ("xgboost", "XGBClassifier", "XGBRegressor"),
}


def estimator_class(algorithm: str, task: Task) -> Any:
    """The class that ``algorithm`` stands for.

    Raises:
        InvalidInputError: there is no such algorithm, or it does not do the task.
        ConfigurationError: its package is not installed.
    """
    module, *names = _entry(algorithm)
    name = names[task == "regression"]
    if name is None:
        place = 1 + (task == "regression")
        able = [other for other, entry in ALGORITHMS.items() if entry[place]]
        raise InvalidInputError(
            f"{algorithm!r} does no {task}, and that is what this target needs; use one of "
            f"{', '.join(able)}.",
            field="algorithm",
            choices=able,
        )
    return getattr(_module(algorithm, module), name)


def check_hyperparameters(algorithm: str, names: Mapping[str, Any]) -> None:
    """Refuse an unknown algorithm, or a hyperparameter that neither of its classes has."""
    module, *classes = _entry(algorithm)
    found = _module(algorithm, module)
    known = {
        name for kind in classes if kind for name in getattr(found, kind)().get_params(deep=False)
    }
    _check_names(algorithm, names, known)


def make_estimator(algorithm: str, task: Task, hyperparameters: Mapping[str, Any]) -> Any:
    """An estimator that was not trained yet; ``random_state`` is 0 unless it is given."""
    made = estimator_class(algorithm, task)()
    known = made.get_params(deep=False)
    _check_names(algorithm, hyperparameters, set(known))
    defaults: dict[str, Any] = {"random_state": 0} if "random_state" in known else {}
    return made.set_params(**{**defaults, **hyperparameters})


def _entry(algorithm: str) -> tuple[str, str | None, str | None]:
    if algorithm not in ALGORITHMS:
        close = nearest(str(algorithm), ALGORITHMS)
        meant = f"did you mean {close[0]!r}? There are " if close else "there are "
        raise InvalidInputError(
            f"algorithm={algorithm!r} is unknown; {meant}{', '.join(ALGORITHMS)}.",
            field="algorithm",
            choices=close or list(ALGORITHMS),
        )
    return ALGORITHMS[algorithm]


def _module(algorithm: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ConfigurationError(
            f"algorithm={algorithm!r} needs the package {module}, which is not installed; "
            f"run pip install {module}, or use 'hist_gradient_boosting'."
        ) from None


def _check_names(algorithm: str, names: Mapping[str, Any], known: set[str]) -> None:
    for name in names:
        if name not in known:
            close = nearest(str(name), sorted(known))
            end = (
                f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(sorted(known))}."
            )
            raise InvalidInputError(
                f"{name!r} is no hyperparameter of {algorithm!r}; {end}",
                field=str(name),
                choices=close or sorted(known),
            )
