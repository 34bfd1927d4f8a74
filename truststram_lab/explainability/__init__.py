"""Why a prediction came out as it did: exact where that is affordable, named where it is not.

``explain_rows`` explains the platform's own networks in plain numpy. ``SHAPExplainer``,
``LIMEExplainer`` and ``BaseExplainer`` explain anything that predicts; what each model's method
needs is loaded when it is used. All of them speak of the columns people know.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .explain import EXACT_COLUMNS, background_of, explain_rows
from .interfaces import DenseLike, EncoderLike, NetworkLike

if TYPE_CHECKING:
    from .base_explainer import BaseExplainer
    from .explanation_set import ExplanationSet
    from .lime_explainer import LIMEExplainer
    from .lime_samples import TrainingStatistics
    from .shap_explainer import SHAPExplainer

_HOMES = {
    "BaseExplainer": "base_explainer",
    "ExplanationSet": "explanation_set",
    "LIMEExplainer": "lime_explainer",
    "SHAPExplainer": "shap_explainer",
    "TrainingStatistics": "lime_samples",
}

__all__ = [
    "EXACT_COLUMNS",
    "BaseExplainer",
    "DenseLike",
    "EncoderLike",
    "ExplanationSet",
    "LIMEExplainer",
    "NetworkLike",
    "SHAPExplainer",
    "TrainingStatistics",
    "background_of",
    "explain_rows",
]


def __getattr__(name: str) -> Any:
    # The platform's worker takes explain_rows alone and stays as small as it is.
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
