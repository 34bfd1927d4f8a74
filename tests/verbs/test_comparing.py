"""Runs side by side, on a real sandbox."""

from __future__ import annotations

import base64
import re
from io import BytesIO

import pytest
from PIL import Image

from truststram_lab import verbs
from truststram_lab.exceptions import InvalidInputError, RunNotFoundError

OPTIONS = {"name": "side", "rounds": 3, "clients": 3, "split": "iid"}


@pytest.fixture(scope="module")
def two(shared_session) -> list[str]:
    return [
        verbs.federate("breast-cancer", strategy=strategy, learning_rate=rate, **OPTIONS).name
        for strategy, rate in (("fedavg", 0.1), ("fedprox:mu=0.5", 0.02))
    ]


def test_the_table_has_the_runs_own_numbers(two):
    found = verbs.compare(*two)
    frame = found.to_frame()
    for run, (_, line) in zip(found, frame.iterrows(), strict=True):
        assert line["run"] == run.name
        assert line["accuracy"] == run.report.federated.accuracy
        assert line["loss"] == run.report.history[-1].loss
        assert line["bytes"] == sum(s.sent_bytes + s.received_bytes for s in run.report.sites)
        assert (line["sites"], line["rounds"], line["split"]) == (3, 3, "iid")
    assert list(frame["strategy"]) == ["fedavg", "fedprox:mu=0.5"]


def test_the_card_draws_the_curves_and_names_what_differs(two):
    card = verbs.runs("compare", *two).card()
    assert len(card.html.encode()) + len(card.text.encode()) < 50_000
    (found,) = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', card.html)
    with Image.open(BytesIO(base64.b64decode(found[0]))) as image:
        assert image.convert("RGBA").getpixel((0, 0))[3] == 0
        assert image.size[0] > 500
    text = " ".join(card.text.split())
    assert " ".join(found[1].split()) in text
    assert "is the most accurate" in found[1] or "equally accurate" in found[1]
    differs = text.partition("What differs between the plans")[2]
    assert "strategy fedavg in" in differs
    assert f"local learning rate 0.1 in {two[0]}; 0.02 in {two[1]}" in differs
    assert "rounds 3" not in differs


def test_a_run_of_another_kernel_is_compared_as_well(two):
    from truststram_lab.verbs import session as sessions

    here = verbs.compare(*two).to_frame()
    mine = sessions.require("testing").runs
    kept = dict(mine)
    mine.clear()
    try:
        there = verbs.compare(*two).to_frame()
    finally:
        mine.update(kept)
    columns = ["run", "strategy", "accuracy", "loss", "rounds", "status"]
    assert there[columns].equals(here[columns])


def test_a_wrong_name_gets_the_nearest_and_one_run_is_no_comparison(two):
    with pytest.raises(RunNotFoundError, match="side-1"):
        verbs.compare("side-1", "sidd-1")
    with pytest.raises(InvalidInputError, match="two different"):
        verbs.compare("side-1", "side-1")
    with pytest.raises(InvalidInputError, match="two different"):
        verbs.runs("compare")
