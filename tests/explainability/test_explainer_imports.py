"""An explanation pays the imports its method needs, and a large one the memory of its parts."""

from __future__ import annotations

import subprocess
import sys

import pytest

LINEAR = """
import numpy as np
from sklearn.linear_model import LogisticRegression
x = np.random.default_rng(0).normal(size=(50, 3))
model = LogisticRegression().fit(x, x[:, 0] > 0)
from truststram_lab.explainability import LIMEExplainer, SHAPExplainer
assert SHAPExplainer(model, x).explain(x[:3])._repr_html_()
LIMEExplainer(model, background_data=x).explain(x[:3])
never = {"torch", "matplotlib"}
"""
TREES = LINEAR.replace("linear_model", "ensemble").replace(
    "LogisticRegression", "GradientBoostingClassifier"
)
TORCH = """
import numpy as np
from torch import nn
x = np.random.default_rng(0).normal(size=(50, 3))
from truststram_lab.explainability import SHAPExplainer
SHAPExplainer(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), x).explain(x[:3])
never = {"matplotlib"}
"""
WORKER = """
import truststram_lab.explainability
truststram_lab.explainability.explain_rows
never = {"torch", "sklearn", "scipy", "pandas", "matplotlib"}
"""


@pytest.mark.parametrize(
    "code", [LINEAR, TREES, TORCH, WORKER], ids=["linear", "trees", "torch", "worker"]
)
def test_an_explanation_loads_neither_shap_nor_numba(code):
    ends = "import sys\nfound = (never | {'shap', 'numba', 'lime'}) & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}{ends}assert not found, found"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


LARGE = """
import numpy as np
from sklearn.{module} import {model}
rng = np.random.default_rng(0)
x = rng.normal(size=(100_000, 100))
fitted = {model}({options}).fit(x[:2000], x[:2000, 0] > 0)
from truststram_lab.explainability import SHAPExplainer
told = []
found = SHAPExplainer(fitted, x[:100]).explain(x, progress=lambda *at: told.append(at))
assert found.values.shape == (100_000, 100), found.values.shape
assert told[-1] == (100_000, 100_000) and len(told) > 2, len(told)
from truststram_lab.learning.device import memory_facts
print(memory_facts('cpu').peak_bytes)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("module", "model", "options"),
    [
        ("linear_model", "LogisticRegression", ""),
        ("ensemble", "GradientBoostingClassifier", "n_estimators=20"),
    ],
)
def test_a_hundred_thousand_rows_by_a_hundred_columns_take_less_than_2_gb(module, model, options):
    code = LARGE.format(module=module, model=model, options=options)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2e9
