"""kill -9 of a site whose rows are protected: nothing leaves twice, nothing is charged twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import dying_private_site as dying
import numpy as np
import pandas as pd
import pytest

from truststram_lab import verbs
from truststram_lab.client import TrustStramClient
from truststram_lab.federated.owner_ledger import OwnerLedger
from truststram_lab.federated.site_table import read_site_table
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.preprocessing import fingerprint
from truststram_lab.schemas.privacy import BudgetKey, GaussianUse

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

ROUNDS = 1
WAIT_S = 150.0


def table(seed: int, rows: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    ill = rng.random(rows) < 0.45
    return pd.DataFrame(
        {
            "dose": rng.normal(10, 2, rows) + 4 * ill,
            "age": rng.normal(60, 9, rows),
            "ill": np.where(ill, "yes", "no"),
        }
    )


@pytest.fixture(scope="module")
def deaths(shared_session, tmp_path_factory):
    """(run, its owner's client, what each life said, what left, the dead site's ledger)."""
    home = tmp_path_factory.mktemp("dying")
    path = home / "rows.csv"
    table(0).to_csv(path, index=False)
    client = TrustStramClient(environment="sandbox")
    verbs.federations("dying", "create")
    [token] = [one.token for one in client.federations.invite("dying", ["a"])]
    client.federations.invite("dying", ["b"])
    other = verbs.join(
        "dying", table(1), target="ill", site="b", background=True, bounds=dying.BOUNDS
    )
    environment = {
        **os.environ,
        "TRUSTSTRAM_HOME": str(home),
        "TRUSTSTRAM_BASE_URL": client.base_url,
        "TRUSTSTRAM_FL_TOKEN": token,
    }
    script = Path(__file__).with_name("dying_private_site.py")
    command = [sys.executable, str(script), "dying", str(path), str(ROUNDS + 1)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            run = verbs.federations(
                "dying", "open", rounds=ROUNDS, epochs=1, dp=4.0, wait=True, background=True
            )
            run.wait(timeout_s=WAIT_S)
            out, said = process.communicate(timeout=60)
        finally:
            process.kill()
            other.stop()
    assert process.returncode == 0, said[-2000:]
    frame = read_site_table(pd.read_csv(path), "ill").frame
    key = BudgetKey(dataset_sha256=fingerprint(frame), unit="record")
    lines = [line.split() for line in (home / "sent.log").read_text().splitlines()]
    yield run, client, out.split("\n"), lines, OwnerLedger(key, home / "ledger")
    client.close()


def test_it_died_at_every_point_of_every_charged_round_and_the_run_completed(deaths):
    run, _, said, _, _ = deaths
    assert run.status == "completed"
    assert said[:-1] == [*dying.POINTS * (ROUNDS + 1), "ended 0"]


def test_every_round_is_charged_once_whenever_the_site_died(deaths):
    run, _, _, _, ledger = deaths
    plan = run.snapshot().plan
    entries = ledger.entries()
    assert [entry.state for entry in entries] == ["released"] * (ROUNDS + 1)
    assert not [entry.id for entry in entries if "#" in entry.id]
    uses = [GaussianUse(noise_multiplier=plan.config["statistics_noise"])]
    uses.append(plan.privacy.use(ROUNDS))
    assert ledger.spent(1e-5) == pytest.approx(account(uses, 1e-5).epsilon)


def test_of_every_round_one_draw_of_noise_left_and_it_is_the_platforms(deaths):
    run, client, _, lines, _ = deaths
    made, sent = defaultdict(list), defaultdict(list)
    for what, kind, number, digest in lines:
        {"made": made, "sent": sent}[what][kind, int(number)].append(digest)
    assert set(sent) == {("statistics", 0), *(("training", n + 1) for n in range(ROUNDS))}
    kept = {one.sha256 for one in client.runs.updates(run.name).items}
    for which, digests in sent.items():
        assert len(digests) >= 2  # it died before the answer, and after it
        assert len(set(digests)) == 1
        assert digests[0] in kept
        # Noise that was drawn and died with its process is not drawn again: no seed is kept.
        first, second = made[which]
        assert first != second == digests[0]
