"""Demo data sets: real, small, and on this computer already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..exceptions import InvalidInputError, nearest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DEMO_NAMES", "DemoData", "load_demo"]

#: What ``load_demo`` knows.
DEMO_NAMES = ("breast-cancer", "digits")


@dataclass(frozen=True)
class DemoData:
    """A table to learn on: ``target`` is one of its columns, the others are features.

    ``positive`` is the class that a two-class model's confidence speaks of.
    """

    name: str
    frame: pd.DataFrame
    target: str
    positive: str | None
    title: str
    source: str
    citation: str


def load_demo(name: str) -> DemoData:
    """Load the demo data set ``name``, one of ``DEMO_NAMES``; nothing is downloaded.

    Raises:
        InvalidInputError: there is no demo data set of that name; ``choices`` has the nearest.
    """
    if name == "breast-cancer":
        return _breast_cancer()
    if name == "digits":
        return _digits()
    close = nearest(name, DEMO_NAMES)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {' and '.join(DEMO_NAMES)}."
    raise InvalidInputError(
        f"There is no demo data set {name!r}; {hint}",
        field="name",
        choices=close or list(DEMO_NAMES),
    )


def _breast_cancer() -> DemoData:
    import pandas as pd
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    frame = pd.DataFrame(found.data, columns=[str(column) for column in found.feature_names])
    labels = [str(label) for label in found.target_names]
    frame["diagnosis"] = [labels[code] for code in found.target]
    return DemoData(
        name="breast-cancer",
        frame=frame,
        target="diagnosis",
        positive="malignant",
        title="Breast Cancer Wisconsin (Diagnostic)",
        source="UCI Machine Learning Repository, https://doi.org/10.24432/C5DW2B (CC BY 4.0)",
        citation=(
            "Street, Wolberg and Mangasarian 1993, Nuclear feature extraction for breast tumor "
            "diagnosis. https://doi.org/10.1117/12.148698"
        ),
    )


def _digits() -> DemoData:
    import pandas as pd
    from sklearn.datasets import load_digits

    found = load_digits()
    frame = pd.DataFrame(
        found.data, columns=[f"pixel {row},{column}" for row in range(8) for column in range(8)]
    )
    frame["digit"] = [str(code) for code in found.target]
    return DemoData(
        name="digits",
        frame=frame,
        target="digit",
        positive=None,
        title="Optical Recognition of Handwritten Digits",
        source="UCI Machine Learning Repository, https://doi.org/10.24432/C50P49 (CC BY 4.0)",
        citation=("Alpaydin and Kaynak 1998, Cascading classifiers. Kybernetika 34(4), 369-374."),
    )
