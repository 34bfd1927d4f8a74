"""The package is light to import, and its layers hold."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ["torch", "sklearn", "shap", "lime", "pandas", "matplotlib", "fastapi", "ipywidgets",
         "anywidget", "sqlalchemy", "httpx", "pydantic", "numpy"]  # fmt: skip


def _loaded_by(code: str) -> set[str]:
    program = (
        f"{code}\nimport sys, json\nprint(json.dumps([n for n in sys.modules if '.' not in n]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy():
    assert not _loaded_by("import truststram_lab") & set(HEAVY)


def test_a_public_name_is_loaded_on_first_use():
    import truststram_lab

    for name in truststram_lab.__all__:
        assert getattr(truststram_lab, name) is not None
    with pytest.raises(AttributeError, match="nothing_like_it"):
        truststram_lab.nothing_like_it  # noqa: B018


def test_the_layers_hold():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
