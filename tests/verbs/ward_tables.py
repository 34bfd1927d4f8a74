"""The table of a ward: two numbers and a category that tell who is ill, mostly."""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = ["table"]


def table(seed: int, rows: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    ill = rng.random(rows) < 0.45
    return pd.DataFrame(
        {
            "dose": rng.normal(10, 2, rows) + 4 * ill,
            "age": rng.normal(60, 9, rows),
            "ward": np.where(rng.random(rows) < 0.3 + 0.4 * ill, "icu", "general"),
            "ill": np.where(ill, "yes", "no"),
        }
    )
