"""Aliases from the line to the platform and back: a real shell, the real verbs, a real sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import truststram_lab
from truststram_lab import verbs
from truststram_lab.exceptions import InvalidInputError, ModelNotFoundError
from truststram_lab.learning import weights
from truststram_lab.schemas.registry import Architecture, CreateVersion, DenseLayer
from truststram_lab.schemas.tables import Column, ColumnStatistics, Signature, Statistics
from truststram_lab.verbs import completion
from truststram_lab.verbs import session as sessions


@pytest.fixture(scope="module")
def line(shell, shared_session) -> Iterator[Any]:
    """Runs a line in a notebook that is signed in to a platform with three versions of a model."""
    import numpy as np

    client = sessions.require("testing").client
    client.models.create("icu")
    for slope in (1.0, 2.0, 3.0):
        state = {
            "layers.0.weight": np.full((1, 1), slope, np.float32),
            "layers.0.bias": np.zeros(1, np.float32),
        }
        version = CreateVersion(
            weights_sha256=client.blobs.put(weights.encode(state)),
            architecture=Architecture(inputs=1, layers=[DenseLayer(units=1)]),
            signature=Signature(
                columns=[Column(name="dose", kind="numeric")],
                target="ill",
                classes=["no", "yes"],
                positive_class="yes",
            ),
            statistics=Statistics(
                rows=9,
                sites=1,
                columns=[ColumnStatistics(name="dose", count=9, missing=0, mean=5.0, variance=4.0)],
            ),
        )
        client.models.create_version("icu", version)
    truststram_lab.load_ipython_extension(shell)
    yield lambda code: shell.run_cell(code).result_or_raise()
    truststram_lab.unload_ipython_extension(shell)


def test_a_line_moves_an_alias_and_the_card_shows_it(line):
    found = line("%ts_models icu alias champion --version 2")
    assert found.said == "icu@champion means version 2 now."
    assert "2, @champion" in found.card().text
    assert "@champion 2" in repr(line("%ts_models"))
    shown = line("%ts_models icu@champion")
    assert shown.chosen.sequence == 2
    assert "What version 2 takes in" in shown.card().text
    assert line("%ts_models icu:1 alias first").said == "icu@first means version 1 now."
    assert line("%ts_models icu alias champion").model.aliases[0].version == 3
    gone = line("%ts_models icu unalias first")
    assert gone.said == "icu has no alias first any more; its versions stay."
    assert [entry.alias for entry in gone.model.aliases] == ["champion"]


def test_a_cell_predicts_by_an_alias_what_is_not_deployed(line):
    line("%ts_models icu alias asked --version 2")
    found = line('%%ts_predict icu@asked --explain\n{"dose": 6.0}')
    assert found.only.version == 2
    assert found.explanation is not None
    assert "icu:2" in found.card().text
    with pytest.raises(ModelNotFoundError, match="did you mean 'asked'"):
        line('%%ts_predict icu@askd\n{"dose": 6.0}')
    with pytest.raises(InvalidInputError, match="icu was not trained on demo data"):
        line("%ts_predict icu@asked --example")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("icu", "alias"), "Which alias of icu"),
        (("icu", "unalias"), "%ts_models icu unalias champion"),
        (("icu", "aliases", "a"), "did you mean 'alias'"),
    ],
)
def test_words_that_do_not_go_together_are_refused(line, words, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        verbs.models(*words)
    with pytest.raises(InvalidInputError, match="icu:2 shows that version"):
        verbs.models("icu", version=2)


def test_aliases_complete_as_the_platform_has_them(line):
    line("%ts_models icu alias champion --version 2")
    completion._remembered.clear()
    offered = verbs.completion_names("aliases")
    assert {"icu@champion", "icu@latest"} <= set(offered)
    for reference in offered:
        assert verbs.models(reference).chosen is not None
