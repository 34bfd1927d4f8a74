"""A federation of three kernels and their owner's, as notebooks run it."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.kernel

SIGN_IN = "%load_ext truststram_lab\n%ts_login --sandbox"
TABLE = """
import numpy as np, pandas as pd
def table(seed, rows=80):
    rng = np.random.default_rng(seed)
    ill = rng.random(rows) < 0.45
    return pd.DataFrame({
        "dose": rng.normal(10, 2, rows) + 4 * ill,
        "ward": np.where(rng.random(rows) < 0.3 + 0.4 * ill, "icu", "general"),
        "ill": np.where(ill, "yes", "no"),
    })
df = table(%d)
"""
LINE = "%ts_join icu --data df --target ill --as "
CELL = f"""%{LINE}south
import time
def train(state, x, y):
    time.sleep(0.2)
    return state, len(y), {{"loss": 0.5}}
"""
TIMEOUT_S = 180.0


@pytest.fixture(scope="module")
def four(open_notebook):
    """The owner's notebook, and those of three sites with a table each."""
    owner, *sites = (open_notebook() for _ in range(4))
    for seed, notebook in enumerate((owner, *sites)):
        notebook.run(SIGN_IN)
        notebook.run(TABLE % seed)
    created = owner.run("%ts_federations icu create --sites north,south,east")
    return owner, sites, created


def described(owner, count: int) -> None:
    """Wait until so many sites have described their tables."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        owner.run("found = %ts_federations icu")
        cell = owner.run("sum(s.status == 'present' for s in found.preflight.sites)")
        if int(cell.text) >= count:
            return
        time.sleep(0.2)
    raise AssertionError("the sites did not describe their tables")


@pytest.fixture(scope="module")
def trained(four):
    """A run of two rounds, and what every notebook showed of it."""
    owner, (north, south, east), _ = four
    started = [
        (north, north.start(LINE + "north")),
        (south, south.start(CELL)),
        (east, east.start(f"part = {LINE}east --background\npart.wait(timeout_s=170)")),
    ]
    described(owner, 3)
    opened = owner.run("run = %ts_federations icu open --rounds 2 --positive yes\nrun")
    return opened, [notebook.finish(key, TIMEOUT_S) for notebook, key in started]


def test_an_owners_notebook_trains_the_models_of_three_others(trained):
    opened, sites = trained
    assert "Saved icu:1" in opened.text
    assert "2/2" in opened.text
    for name, cell in zip(("north", "south", "east"), sites, strict=True):
        assert cell.error is None, cell.text
        assert f"{name} in icu" in cell.text
        assert "run icu-1 is over" in cell.text


def test_a_sites_card_stands_once_in_its_cell_and_tells_what_left(trained):
    _, (north, south, _) = trained
    assert north.html.count("rows trained on") == 1
    assert "60 (" in north.text
    assert "train, a function of this kernel" in south.text
    assert "The federation's model on 20 rows this site held out" in north.text


def test_the_federation_is_shown_with_its_sites_and_runs(trained, four):
    owner, _, created = four
    assert "Invited to icu: 3 sites" in created.text
    # Shown when it was made, and out of the notebook since the next cell ran.
    shown = [m for m in owner.messages if "tss_" in str(m["content"])]
    assert len(shown) == 1
    assert "TRUSTSTRAM_FL_TOKEN=tss_" in shown[0]["content"]["data"]["text/plain"]
    assert "tss_" not in str(owner.saved())
    assert "shown once" in created.text
    shown = owner.run("%ts_federations icu").text
    for word in ("north", "south", "east", "icu-1", "none found"):
        assert word in shown
    assert "icu" in owner.run("%ts_federations").text


def test_an_interrupt_stops_a_site_and_the_same_cell_goes_on(trained, four):
    owner, (north, south, east), _ = four
    waiting = north.start(LINE + "north")
    north.until(lambda m: "described" in str(m["content"].get("data", "")))
    north.interrupt()
    stopped = north.finish(waiting)
    assert stopped.error is not None
    assert stopped.error["ename"] == "RunStoppedError"
    assert "join again to go on" in stopped.text
    north.run(
        "import threading\n"
        "for one in threading.enumerate():\n"
        "    if one.name == 'site icu/north': one.join(2)"
    )
    left = north.run("[t.name for t in threading.enumerate()]")
    assert "site icu/north" not in left.text
    again = [north.start(LINE + "north"), south.start(CELL), east.start(LINE + "east")]
    described(owner, 3)
    owner.run("run = %ts_federations icu open --rounds 2 --positive yes")
    for notebook, key in zip((north, south, east), again, strict=True):
        cell = notebook.finish(key, TIMEOUT_S)
        assert cell.error is None, cell.text


def test_an_owner_who_waits_for_sites_is_interrupted_with_their_names(trained, four):
    owner, _, _ = four
    owner.run("%ts_federations empty create --sites far,away")
    waiting = owner.start("%ts_federations empty open --wait")
    owner.until(lambda m: "Waiting for sites" in str(m["content"].get("data", "")))
    owner.interrupt()
    cell = owner.finish(waiting)
    assert cell.error["ename"] == "RunStoppedError"
    assert "far, away of empty did not join yet" in cell.text


def test_a_kernel_that_vanished_joins_again_and_the_round_gets_its_answer(trained, four):
    owner, (north, south, east), _ = four
    slow = CELL.replace("south", "{site}").replace("sleep(0.2)", "sleep(0.5)")
    started = [
        notebook.start(slow.replace("{site}", site))
        for notebook, site in ((north, "north"), (south, "south"))
    ]
    lost = east.start(slow.replace("{site}", "east"))
    described(owner, 3)
    owner.run("run = %ts_federations icu open --rounds 6 --background")
    east.until(lambda m: "training 1" in str(m["content"].get("data", "")))
    east.manager.restart_kernel(now=True)
    east.client.wait_for_ready(timeout=TIMEOUT_S)
    del lost
    east.run(SIGN_IN)
    east.run(TABLE % 3)
    back = east.start(slow.replace("{site}", "east"))
    for notebook, key in ((north, started[0]), (south, started[1]), (east, back)):
        cell = notebook.finish(key, TIMEOUT_S)
        assert cell.error is None, cell.text
    done = owner.run("run.wait(timeout_s=120).status")
    assert "completed" in done.text
