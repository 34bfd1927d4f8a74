"""A real shell with the magics, and verbs that record how they were called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pandas as pd
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import truststram_lab

NAMES = {
    "datasets": ["breast-cancer", "digits"],
    "models": ["breast-cancer", "icu"],
    "aliases": ["breast-cancer@latest", "icu@champion", "icu@challenger", "icu@latest"],
    "runs": ["breast-cancer-1", "icu-3"],
}


class Session:
    """What a person does in a notebook."""

    def __init__(self, shell: InteractiveShell, verbs: mock.Mock) -> None:
        self.shell = shell
        self.verbs = verbs

    @property
    def variables(self) -> dict[str, Any]:
        return self.shell.user_ns

    def run(self, code: str) -> Any:
        """The cell's value; its error is raised."""
        return self.shell.run_cell(code).result_or_raise()

    def complete(self, code: str) -> list[str]:
        """What stands in the cell after each choice that Tab offers at its end."""
        with provisionalcompleter():
            found = list(self.shell.Completer.completions(code, len(code)))
        return [code[: each.start] + each.text for each in found]


class _Shell(InteractiveShell):
    """run_cell gives the error to the test, not to the screen."""

    def showtraceback(self, *_: Any, **__: Any) -> None:
        pass

    def run_cell(self, *args: Any, **kwargs: Any) -> Any:
        result = super().run_cell(*args, **kwargs)

        def result_or_raise() -> Any:
            result.raise_error()
            return result.result

        result.result_or_raise = result_or_raise
        return result


@pytest.fixture(scope="module")
def shell() -> Iterator[InteractiveShell]:
    main = sys.modules["__main__"]
    InteractiveShell.clear_instance()
    shell = _Shell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    yield shell
    _Shell.clear_instance()
    sys.modules["__main__"] = main


@pytest.fixture
def session(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    real = importlib.import_module("truststram_lab.verbs")
    # The recorders refuse every call that the real verbs would refuse.
    verbs = mock.Mock(spec=real.__all__)
    for name in real.__all__:
        recorder = mock.create_autospec(getattr(real, name), return_value=f"<{name}>")
        setattr(verbs, name, recorder)
    verbs.completion_names.side_effect = NAMES.__getitem__
    monkeypatch.setitem(sys.modules, "truststram_lab.verbs", verbs)
    monkeypatch.setattr(truststram_lab, "verbs", verbs, raising=False)
    for variable in ("TRUSTSTRAM_API_KEY", "TRUSTSTRAM_BASE_URL", "EDGEML_API_BASE"):
        monkeypatch.delenv(variable, raising=False)
    shell.user_ns.clear()
    shell.init_user_ns()
    shell.user_ns["df"] = pd.DataFrame(
        {"mean radius": [1.0, 2.0], "ward": ["a", "b"], "died": [0.0, 1.0]}
    )
    shell.user_ns["row"] = {"mean radius": 1.0, "ward": "a"}
    truststram_lab.load_ipython_extension(shell)
    yield Session(shell, verbs)
    truststram_lab.unload_ipython_extension(shell)
