"""What an explainer returns: it cannot change, can be cut, and shows itself in a small card."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.explainability import ExplanationSet, SHAPExplainer

CLASSES = ["low <b>", "middle", "high"]


@pytest.fixture(scope="module")
def many() -> ExplanationSet:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4))
    y = np.array(CLASSES)[np.digitize(x[:, 0] + x[:, 1], [-0.7, 0.7])]
    model = RandomForestClassifier(5, random_state=0).fit(x, y)
    names = ["radius <script>", "texture", "area", "size"]
    return SHAPExplainer(model, x[:20], names).explain(x[:7])


def test_it_cannot_be_changed(many):
    for name in ("values", "base_values", "outputs"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(many, name)[0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        many.method = "other"


def test_rows_are_taken_like_those_of_an_array(many):
    assert many.values.shape == (7, 4, 3)
    assert (len(many), len(many[2]), len(many[1:4]), len(many[[0, 5]])) == (7, 1, 3, 2)
    np.testing.assert_array_equal(many[-1].values[0], many.values[6])
    np.testing.assert_array_equal(many[many.outputs[:, 0] > 2].values, many.values[:0])
    assert [len(row) for row in many] == [1] * 7
    with pytest.raises(IndexError, match="7 explanations; 7 is none"):
        many[7]


def test_one_class_of_several(many):
    high = many.select("high")
    assert high.values.shape == (7, 4)
    np.testing.assert_array_equal(high.values, many.values[:, :, many.classes.index("high")])
    with pytest.raises(InvalidInputError, match="'hihg' is not an explained class") as caught:
        many.select("hihg")
    assert caught.value.choices == ["high"]


def test_as_a_frame_and_as_plain_data(many):
    frame = many.to_frame()
    assert frame.shape == (7, 12)
    np.testing.assert_array_equal(
        frame[("high", "texture")],
        many.select("high").values[:, many.feature_names.index("texture")],
    )
    assert list(many.select("high").to_frame().columns) == list(many.feature_names)
    for row, plain in enumerate(json.loads(json.dumps(many.to_dicts(), allow_nan=False))):
        total = plain["base_value"] + sum(c["contribution"] for c in plain["contributions"])
        assert total + plain["residual"] == pytest.approx(plain["output_value"])
        assert plain["explained_class"] == many.explained_classes[row]
        assert plain["background"]["sha256"] == many.background_sha256


def test_importance_is_the_mean_size_largest_first(many):
    found = many.select("high").importance()
    assert list(found.values()) == sorted(found.values(), reverse=True)
    expected = np.abs(many.select("high").values).mean(axis=0)
    for name, value in found.items():
        assert value == pytest.approx(expected[many.feature_names.index(name)])


def test_the_card_of_a_row_shows_every_class_and_escapes_names(many):
    card = many[0].card()
    assert "<script>" not in card.html
    for name in ("radius &lt;script&gt;", "low &lt;b&gt;", "middle", "high", "✓"):
        assert name in card.html
    bundle = many[0]._repr_mimebundle_(include=None, exclude=None)
    assert set(bundle) == {"application/vnd.truststram.explanation+json", "text/html", "text/plain"}
    assert repr(many[0]) == bundle["text/plain"]


def test_cards_stay_small_with_a_thousand_columns():
    rng = np.random.default_rng(0)
    n, d = 30, 1000
    values = rng.normal(size=(n, d, 3))
    wide = ExplanationSet(
        values=values,
        base_values=np.zeros((n, 3)),
        outputs=values.sum(axis=1),
        feature_names=tuple(f"a rather long name of column {j}" for j in range(d)),
        data=tuple(tuple(row) for row in values[:, :, 0].tolist()),
        classes=("a", "b", "c"),
        output="margin",
        method="linear",
        title="Linear",
        meaning="m",
        background="b",
    )
    for shown in (wide, wide[0]):
        size = sum(len(json.dumps(part).encode()) for part in shown._repr_mimebundle_().values())
        assert size < 50_000


def test_a_page_of_its_own_needs_nothing_else(many, tmp_path):
    page = many[0].save_to_file(tmp_path / "x.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "http" not in page
    assert many[0].card().html in page


def test_figures_come_without_pyplot(many, tmp_path, monkeypatch):
    import sys

    # another test's library may have loaded it: what counts is that nothing here does
    for name in [name for name in sys.modules if name.startswith("matplotlib.pyplot")]:
        monkeypatch.delitem(sys.modules, name)
    for figure in (many.plot_summary(), many[0].plot_waterfall(class_label="high")):
        assert type(figure).__name__ == "Figure"
    many.plot_summary(tmp_path / "s.svg", class_label="high", max_display=2)
    assert (tmp_path / "s.svg").read_text().startswith("<?xml")
    assert "matplotlib.pyplot" not in sys.modules
    with pytest.raises(InvalidInputError, match="shows one row and there are 7"):
        many.plot_waterfall()


def test_no_rows_are_an_empty_set(many):
    assert len(many[:0]) == 0
    assert "0 rows" in many[:0].card().text
    with pytest.raises(InvalidInputError, match="explain at least one"):
        many.select("high")[:0].plot_summary()
