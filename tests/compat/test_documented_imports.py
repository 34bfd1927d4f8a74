"""The documents' import lines, from the source tree as an installation lays it out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import truststram_lab

COMPAT = Path(truststram_lab.__file__).parent / "compat"

LINES = [
    "from truststram import TrustStramClient",
    "from truststram.async_client import AsyncTrustStramClient",
    "from truststram.exceptions import TrustStramException, ModelNotFoundError",
    "from truststram.federated import FederatedLearningCoordinator",
    "from truststram.federated import FederatedServer, FederatedClient",
    "from truststram.explainability import SHAPExplainer, LIMEExplainer, BaseExplainer",
    "from truststram.preprocessing import DataProcessor",
    "from truststram.models import MLModel",
    "from edgeml import FederatedClient",
    "from edgeml.federated import compute_state_dict_delta",
    "from edgeml.federated import apply_filters",
]


def python(code: str) -> subprocess.CompletedProcess[str]:
    path = [str(COMPAT), str(COMPAT.parent.parent)]
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_documented_lines_import_one_and_the_same():
    same = (
        "import edgeml, truststram.federated, truststram_lab.federated as own\n"
        "assert edgeml.FederatedClient is truststram.federated.FederatedClient\n"
        "assert edgeml.FederatedClient is own.FederatedClient"
    )
    done = python("\n".join([*LINES, same]))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "package",
    [
        "truststram",
        "truststram.explainability",
        "truststram.preprocessing",
        "truststram.models",
        "edgeml",
        "truststram_lab.federated",
    ],
)
def test_importing_a_shim_loads_nothing_heavy(package):
    heavy = "{'torch', 'pandas', 'sklearn', 'shap', 'matplotlib', 'ipywidgets', 'fastapi'}"
    done = python(f"import {package}, sys; assert not {heavy} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


def test_the_shims_say_that_they_are_typed_and_leave_no_package_around_them():
    for name in ("truststram", "edgeml"):
        assert (COMPAT / name / "py.typed").exists()
    assert not (COMPAT / "__init__.py").exists()


def test_an_unknown_name_is_an_attribute_error():
    done = python(
        "import truststram\ntry:\n    truststram.Nothing\nexcept AttributeError:\n    pass"
    )
    assert done.returncode == 0, done.stderr
