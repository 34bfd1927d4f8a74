from __future__ import annotations

import math
import re

import card_examples as ex
import pytest
from card_reading import words_of
from hypothesis import given, settings
from hypothesis import strategies as st

from truststram_lab.render import adds_up, deployments_card, prediction_card
from truststram_lab.render.numbers import percent, scalar, signed
from truststram_lab.schemas.serving import Scaling


def both(card):
    return [words_of(card.html), " ".join(card.text.split())]


def test_all_probabilities_are_shown_each_with_its_label():
    for said in both(prediction_card(ex.prediction())):
        assert said.startswith("malignant 97 %, benign 3 % by breast-cancer:1, 4 ms")


@settings(deadline=None)
@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_no_probability_reads_certain_unless_it_is(value):
    probabilities = {"sick": value, "well": 1 - value}
    prediction = ex.prediction(label="sick", probabilities=probabilities, explanation=None)
    for said in both(prediction_card(prediction)):
        assert "sick 100 %" not in said
        assert "sick 0 %" not in said


def test_contributions_are_sorted_signed_and_the_rest_are_counted():
    prediction = ex.prediction()
    parts = sorted(prediction.explanation.contributions, key=lambda p: -abs(p.contribution))
    rest = math.fsum(p.contribution for p in parts[8:])
    for said in both(prediction_card(prediction)):
        place = 0
        for part in parts[:8]:
            pattern = re.escape(f"{part.feature} {scalar(part.value)} ")
            found = re.search(
                pattern + r"[█▏▎▍▌▋▊▉]+ " + re.escape(signed(part.contribution)), said
            )
            assert found, part
            assert found.start() > place
            place = found.start()
        assert re.search(rf"22 others [█▏▎▍▌▋▊▉]+ {re.escape(signed(rest))}", said)
        assert "Log-odds towards malignant, from -0.50" in said
        assert "-0.50 and all of these = 3.48 ✓ 97 % malignant" in said
        assert "DeepLIFT; background: federated means, no rows" in said


def test_every_number_of_the_explanation_is_visible():
    explanation = ex.explanation(residual=0.0123, standard_error=0.0045)
    for said in both(prediction_card(ex.prediction(explanation=explanation))):
        for part in explanation.contributions:
            assert part.feature in said
            assert f"{scalar(part.value)} " in said
        for number in ("-0.5000", "+3.4790", "0.0123", "0.012", "0.0045", "426 rows", "+0.0247"):
            assert number in said or number == "0.0123"
        assert explanation.meaning in said


def test_the_check_mark_is_earned():
    good = ex.explanation()
    bad = ex.explanation(output_value=good.output_value + 0.05)
    assert adds_up(good)
    assert not adds_up(bad)
    assert "✓" not in prediction_card(ex.prediction(explanation=bad)).text
    assert "but the model's output is 3.53" in prediction_card(ex.prediction(explanation=bad)).text


def test_what_the_method_did_not_attribute_is_a_row_of_its_own():
    total = ex.explanation().output_value
    explanation = ex.explanation(output_value=total + 0.3, residual=0.3)
    for said in both(prediction_card(ex.prediction(explanation=explanation))):
        assert re.search(r"not attributed by the method [█▏▎▍▌▋▊▉]+ \+0\.30", said)
        assert "= 3.78 with what is not attributed" in said
        assert "✓" not in said


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=40), st.floats(-10, 10))
def test_a_true_sum_adds_up_and_a_shifted_one_does_not(amounts, base):
    parts = [
        part.model_copy(update={"contribution": amount})
        for part, amount in zip(ex.explanation().contributions * 2, amounts, strict=False)
    ]
    output = base + math.fsum(amounts)
    made = ex.explanation(base_value=base, output_value=output, contributions=parts)
    assert adds_up(made)
    off = 0.001 * max(1.0, abs(output), abs(base), *map(abs, amounts))
    assert not adds_up(made.model_copy(update={"output_value": output + off}))


def test_a_nan_in_an_explanation_earns_no_check_mark():
    card = prediction_card(ex.prediction(explanation=ex.explanation(output_value=math.nan)))
    assert "✓" not in card.text
    assert "unknown" in card.text


def test_few_columns_leave_no_others():
    few = ex.explanation().contributions[:3]
    total = -0.5 + math.fsum(part.contribution for part in few)
    explanation = ex.explanation(contributions=few, output_value=total, method="exact_shapley")
    text = prediction_card(ex.prediction(explanation=explanation)).text
    assert "other" not in text.split("What they mean")[0]
    assert "Exact Shapley values; background" in text


def test_more_than_two_classes_have_their_own_output_space():
    explanation = ex.explanation(output_space="centred_logit", explained_class="virginica")
    text = prediction_card(ex.prediction(explanation=explanation)).text
    assert "Logit of virginica above the mean of all labels, from -0.50" in text
    assert "= 3.48  ✓\n" in text


def test_the_truth_stands_beside_the_prediction():
    assert "Truth: malignant ✓ right" in prediction_card(ex.prediction(), truth=["malignant"]).text
    assert "Truth: benign ✗ wrong" in prediction_card(ex.prediction(), truth=["benign"]).text


def test_many_labels_are_all_there():
    probabilities = {f"label {i}": (i + 1) / 465 for i in range(30)}
    prediction = ex.prediction(label="label 29", probabilities=probabilities, explanation=None)
    for said in both(prediction_card(prediction)):
        for name, value in probabilities.items():
            assert f"{name} {percent(value)}" in said


def test_many_predictions_are_a_table_with_a_tally():
    benign = ex.prediction(label="benign", probabilities={"benign": 0.9996, "malignant": 0.0004})
    card = prediction_card([ex.prediction(), benign], truth=["malignant", "malignant"])
    for said in both(card):
        assert "2 predictions: 1 malignant, 1 benign" in said
        assert "Right: 1 of 2, 50 %" in said
        assert "1 malignant 3 % 97 % malignant ✓ worst radius +2.60" in said
        assert "2 benign 99.96 % 0.04 % malignant ✗ worst radius +2.60" in said


def test_a_long_table_says_how_many_rows_are_not_shown():
    assert "and 460 more rows" in prediction_card([ex.prediction(explanation=None)] * 500).text


def test_a_deployment_says_what_answers_where():
    for said in both(deployments_card([ex.deployment()])):
        assert "breast-cancer (sandbox) breast-cancer:2 ready 4 2026-11-22 09:30" in said
        assert ex.deployment().endpoint_url in said
        assert "%ts_predict breast-cancer" in said


@pytest.mark.parametrize("card", [deployments_card([]), prediction_card([])])
def test_nothing_is_said_in_a_sentence(card):
    assert card.text.endswith(("breast-cancer", "no row."))


def test_a_value_is_shown_as_a_number_without_probabilities() -> None:
    values = [
        ex.prediction(value=value, label=repr(value), probabilities={}, confidence=None,
                      confidence_class=None, explanation=None)
        for value in (1234.5, 20000.25)
    ]  # fmt: skip
    for said in both(prediction_card(values[0])):
        assert "1,234.5" in said
        assert "%" not in said
    for said in both(prediction_card(values)):
        assert "1,234.5 to 20,000.2, mean 10,617.4" in said
        assert "Probability" not in said


def test_a_deployment_says_how_many_workers_it_has_and_what_computes_it() -> None:
    scaling = Scaling(min_instances=2, max_instances=10, instances=3)
    served = ex.deployment(scaling=scaling, runtime="onnx", runtime_reason="Converted; the same.")
    for said in both(deployments_card([served])):
        assert "ready, 3 workers" in said
        assert "2 to 10" in said
        assert "Converted; the same." in said
