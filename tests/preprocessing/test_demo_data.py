from __future__ import annotations

import pytest

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.preprocessing import (
    DEMO_NAMES,
    encoded_width,
    fingerprint,
    infer_signature,
    load_demo,
)


@pytest.mark.parametrize("name", DEMO_NAMES)
def test_a_demo_is_ready_to_be_federated(name: str) -> None:
    demo = load_demo(name)
    assert demo.name == name
    signature = infer_signature(demo.frame, demo.target, demo.positive)
    assert signature.positive_class == demo.positive
    assert all(column.kind == "numeric" and not column.nullable for column in signature.columns)
    assert fingerprint(demo.frame) == fingerprint(load_demo(name).frame)
    for text in (demo.title, demo.source, demo.citation):
        assert text


def test_breast_cancer_is_the_published_table() -> None:
    demo = load_demo("breast-cancer")
    # Street et al. 1993: 569 patients, 357 benign and 212 malignant, 30 features.
    assert demo.frame.shape == (569, 31)
    assert demo.frame["diagnosis"].value_counts().to_dict() == {"benign": 357, "malignant": 212}
    assert "mean radius" in demo.frame.columns
    assert demo.positive == "malignant"
    by_diagnosis = demo.frame.groupby("diagnosis")["mean radius"].mean()
    assert by_diagnosis["malignant"] > by_diagnosis["benign"]


def test_digits_have_ten_classes_in_order() -> None:
    demo = load_demo("digits")
    signature = infer_signature(demo.frame, demo.target, demo.positive)
    assert signature.classes == [str(digit) for digit in range(10)]
    assert encoded_width(signature) == 64
    assert signature.columns[0].name == "pixel 0,0"
    assert signature.columns[-1].name == "pixel 7,7"


@pytest.mark.parametrize(
    ("name", "sentence", "choices"),
    [
        ("breast-cancr", "did you mean 'breast-cancer'?", ["breast-cancer"]),
        ("zzz", "there are breast-cancer and digits.", list(DEMO_NAMES)),
    ],
)
def test_an_unknown_demo_is_refused_with_those_there_are(
    name: str, sentence: str, choices: list[str]
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        load_demo(name)
    assert sentence in caught.value.message
    assert caught.value.choices == choices
