"""A site that keeps a model of its own, on a real platform."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from truststram_lab import verbs
from truststram_lab.exceptions import InvalidInputError, PermissionDeniedError
from truststram_lab.federated.participation import outbox_folder

WAIT_S = 120.0


def table(seed: int, sign: int = 1, rows: int = 80) -> pd.DataFrame:
    """The dose tells who is ill; with ``sign`` -1 the other way round."""
    rng = np.random.default_rng(seed)
    ill = rng.random(rows) < 0.5
    dose = rng.normal(0, 1, rows) + sign * 3 * (ill - 0.5)
    return pd.DataFrame({"dose": dose, "ill": np.where(ill, "yes", "no")})


def join(federation: str, site: str, frame: pd.DataFrame, **given):
    return verbs.join(federation, frame, target="ill", site=site, background=True, **given)


def test_a_site_unlike_the_others_is_served_by_its_personal_model_also_after_a_restart(
    shared_session, ending
):
    verbs.federations("unlike", "create", sites=["a", "b", "c"])
    mine = join("unlike", "a", table(0, sign=-1), personal="ditto:lambda=0.1")
    ending += [mine, join("unlike", "b", table(1)), join("unlike", "c", table(2))]
    run = verbs.federations(
        "unlike", "open", rounds=8, epochs=10, learning_rate=0.3, background=True
    )
    deadline = time.monotonic() + WAIT_S
    while len(mine.snapshot().scores) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    mine.stop()
    kept = mine.personal_model()
    assert kept
    again = join("unlike", "a", table(0, sign=-1), personal="ditto:lambda=0.1")
    ending.append(again)
    again.wait(timeout_s=WAIT_S)
    run.wait(timeout_s=WAIT_S)
    last = again.snapshot().scores[-1]
    # The others are two to one: what is true of them is wrong here.
    assert last.score.accuracy < 0.5
    assert last.personal.accuracy > 0.8
    text = again.card().text
    assert "ditto:lambda=0.1; it stays here" in text
    assert "Personal" in text
    assert any(again.personal_model()[name].tolist() != kept[name].tolist() for name in kept)
    # Private to this user, beside the outbox; nothing of it is among what was sent.
    folder = outbox_folder("sandbox", "unlike", "a")
    assert (folder / "state").stat().st_mode & 0o077 == 0


def test_a_dry_run_and_a_script_name_the_personal_model(shared_session, tmp_path):
    found = verbs.join("any", table(0), target="ill", dry_run=True, personal="ditto")
    assert "the personal model (ditto:lambda=0.1)" in " ".join(found.card().text.split())
    script = tmp_path / "site.py"
    verbs.join("any", table(0), target="ill", export=script, personal="ditto:lambda=0.5")
    assert "personal='ditto:lambda=0.5'," in script.read_text()
    compile(script.read_text(), str(script), "exec")


def test_a_head_that_is_no_layer_ends_the_part_with_the_layers(shared_session, ending):
    with pytest.raises(InvalidInputError, match="0 or more"):
        join("nohead", "a", table(0), personal="ditto:lambda=-1")
    verbs.federations("nohead", "create", sites=["a", "b"])
    mine = join("nohead", "a", table(0), personal="fedper:head=output")
    ending += [mine, join("nohead", "b", table(1))]
    run = verbs.federations("nohead", "open", rounds=1, background=True)
    with pytest.raises(PermissionDeniedError, match=r"No layer is named 'output'.*layers\.0"):
        mine.wait(timeout_s=WAIT_S)
    assert mine.snapshot().updates_sent == 0
    run.stop()
