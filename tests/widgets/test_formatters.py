"""IPython shows our results as cards, and loads nothing to be ready for them."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from truststram_lab.schemas.serving import Prediction
from truststram_lab.widgets import register_formatters, unregister_formatters

PREDICTION = Prediction(
    prediction_id="prediction_1",
    model="icu",
    version=1,
    label="died",
    probabilities={"survived": 0.125, "died": 0.875},
    confidence=0.875,
    confidence_class="died",
)


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    main = sys.modules["__main__"]
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    yield shell
    sys.modules["__main__"] = main


def test_a_prediction_is_shown_as_a_card_and_plainly_without_us(shell):
    plain, _ = shell.display_formatter.format(PREDICTION)
    register_formatters(shell)
    register_formatters(shell)
    card, _ = shell.display_formatter.format(PREDICTION)
    assert "died" in card["text/html"]
    assert "died" in card["text/plain"]
    unregister_formatters(shell)
    unregister_formatters(shell)
    again, _ = shell.display_formatter.format(PREDICTION)
    assert again == plain
    assert "text/html" not in again
