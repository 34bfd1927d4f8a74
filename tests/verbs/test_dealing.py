"""Who has what, before anything trains: the picture's numbers are the rows'."""

from __future__ import annotations

import base64
import re
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from truststram_lab import verbs
from truststram_lab.exceptions import InvalidInputError
from truststram_lab.verbs import session as sessions

SPLITS = ["iid", "dirichlet:0.3", "shards:2", "quantity:0.5"]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("clients", [6, 60])
def test_every_row_to_train_on_is_counted_once_where_it_is_dealt(split: str, clients: int) -> None:
    dealt = verbs.federate("digits", clients=clients, split=split, dry_run=True)
    frame = dealt.to_frame()
    prepared = dealt.prepared
    expected = [
        pd.Series(prepared.codes[part]).value_counts().reindex(range(10), fill_value=0).tolist()
        for part in prepared.parts.values()
    ]
    assert frame.to_numpy().tolist() == expected
    assert frame.to_numpy().sum() + len(prepared.held_out.codes) == 1797
    card = dealt.card()
    text = " ".join(card.text.split())
    assert f"{frame.sum(axis=1).min()} to {frame.sum(axis=1).max()} rows" in text or (
        "Every site has" in text
    )
    assert len(card.html.encode()) + len(card.text.encode()) < 50_000


def test_a_run_deals_its_rows_as_the_dry_run_showed(shared_session) -> None:
    options = {"clients": 4, "split": "dirichlet:0.3", "rounds": 1, "epochs": 1, "seed": 5}
    shown = verbs.federate("breast-cancer", dry_run=True, **options).to_frame()
    run = verbs.federate("breast-cancer", name="dealt", **options)
    for site in run.snapshot().report.sites:
        assert shown.loc[site.name].to_dict() == site.class_rows


def test_nobody_need_be_signed_in_and_nothing_is_begun(platform_home) -> None:
    before = sessions.current()
    dealt = verbs.federate("breast-cancer", clients=3, dry_run=True)
    assert sessions.current() is before
    assert not (platform_home / "sandbox").exists()
    assert "Nothing has trained" in dealt.card().text


def test_columns_that_are_the_sites_keep_their_names() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"ward": rng.choice(["icu", "north", "south"], 200), "age": rng.normal(60, 9, 200)}
    )
    frame["died"] = np.where(rng.random(200) < 0.3, "yes", "no")
    found = verbs.federate(frame, target="died", by="ward", dry_run=True).to_frame()
    assert sorted(found.index) == ["icu", "north", "south"]


def test_the_picture_is_darkest_where_a_class_is_alone() -> None:
    # Sorted by class, one site has nearly all of one class.
    options = {"clients": 10, "split": "shards:1", "allow_one_class": True}
    dealt = verbs.federate("digits", dry_run=True, **options)
    html = dealt.card().html
    png, said = re.search(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', html).groups()
    assert "Share of each class at each site" in said
    with Image.open(BytesIO(base64.b64decode(png))) as image:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    assert alpha[0, 0] == 0
    assert 0.02 < (alpha > 200).mean() < 0.4


def test_what_cannot_be_dealt_is_refused_as_by_a_run() -> None:
    with pytest.raises(InvalidInputError, match="choose --clients"):
        verbs.federate("breast-cancer", clients=30_000, dry_run=True)
