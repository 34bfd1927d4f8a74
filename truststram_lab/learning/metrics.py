"""How good a classifier is on held-out rows, and how sure one can be of that."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..exceptions import InvalidInputError
from ..schemas.federation import Score

__all__ = ["log_loss", "score", "wilson_interval"]

#: 97.5 % quantile of the standard normal distribution
_Z = 1.959963984540054


def wilson_interval(successes: int, trials: int, z: float = _Z) -> tuple[float, float]:
    """The score interval of a share, ``z`` standard errors wide (95 % by default).

    Raises:
        InvalidInputError: not 0 <= successes <= trials, or no trial.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference",
    J. Am. Stat. Assoc. 22, 209-212.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise InvalidInputError(
            f"{successes} of {trials} is no share; give at least one held-out row."
        )
    share = successes / trials
    shrink = 1.0 + z * z / trials
    centre = (share + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # At the ends the interval touches 0 or 1 exactly; rounding must not cross them.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def score(codes: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> Score:
    """Accuracy with its 95 % Wilson interval, and recall by class.

    Args:
        codes: true class places, int (n,), n >= 1.
        probabilities: float (n, classes); the largest of a row is the prediction.
        classes: their labels.

    Returns:
        A Score; classes without a held-out row have no recall.
    """
    _check(codes, probabilities, len(classes))
    predicted = probabilities.argmax(axis=1)
    right = predicted == codes
    low, high = wilson_interval(int(right.sum()), len(codes))
    recall = {
        label: float(right[codes == place].mean())
        for place, label in enumerate(classes)
        if (codes == place).any()
    }
    return Score(accuracy=float(right.mean()), low=low, high=high, rows=len(codes), recall=recall)


def log_loss(codes: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean of ``-log(probability of the true class)``, in nats a row.

    Probabilities are floored at the smallest normal float, so the loss stays finite.
    """
    _check(codes, probabilities, probabilities.shape[-1])
    true = probabilities[np.arange(len(codes)), codes]
    return float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean())


def _check(codes: np.ndarray, probabilities: np.ndarray, classes: int) -> None:
    if not len(codes) or probabilities.shape != (len(codes), classes):
        raise InvalidInputError(
            f"{len(codes)} held-out rows and probabilities of shape {probabilities.shape} for "
            f"{classes} classes do not fit; score at least one row, with one column a class."
        )
