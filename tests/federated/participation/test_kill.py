"""kill -9 of a site's process at every step and every change of its disk, on a real platform."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import open_run, start_state

from truststram_lab.client import TrustStramClient
from truststram_lab.federated.participation import Outbox
from truststram_lab.learning import weights

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

ROUNDS = 70


@pytest.fixture(scope="module")
def life(shared_home, tmp_path_factory):
    """The whole run through all deaths: (client, run, folder, what each life said)."""
    folder = tmp_path_factory.mktemp("site") / "site"
    with TrustStramClient(environment="sandbox") as client:
        run, tokens = open_run(client, "killed-site", ["a"], ROUNDS)
        script = Path(__file__).with_name("dying_site.py")
        done = subprocess.run(
            [sys.executable, str(script), client.base_url, tokens["a"], str(folder)],
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        yield client, run, folder, done.stdout.split()


def test_the_run_completes_and_its_model_is_the_sum_of_the_updates(life):
    client, run, folder, said = life
    assert said.count("killed") >= 35
    done = client.runs.get(run.name)
    assert (done.status, done.round) == ("completed", ROUNDS)
    ledger = (folder / "outbox" / "sent.jsonl").read_text()
    sent = [json.loads(line) for line in ledger.splitlines()]
    assert sorted(line["number"] for line in sent) == list(range(ROUNDS + 1))
    expected = start_state()
    for line in sorted(sent, key=lambda line: line["number"]):
        if line["kind"] == "training":
            body = (folder / "bodies" / line["sha256"]).read_bytes()
            expected = weights.apply(expected, weights.decode(body)[0])
    final, _ = weights.decode(client.models.download("killed-site", done.model_version))
    for name, array in expected.items():
        assert np.array_equal(final[name], array)


def test_no_round_was_sent_with_two_different_contents(life):
    _, _, folder, _ = life
    digests = defaultdict(set)
    for line in (folder / "pushes.log").read_text().splitlines():
        round_id, digest = line.split()
        digests[round_id].add(digest)
    assert len(digests) == ROUNDS + 1
    assert {len(found) for found in digests.values()} == {1}


def test_the_sites_own_state_counts_every_acknowledged_round_once(life):
    _, _, folder, _ = life
    with Outbox(folder / "outbox") as outbox:
        assert outbox.state("rounds") == str(ROUNDS).encode()
        assert outbox.waiting() == []
    leftovers = [path.name for path in (folder / "outbox").rglob(".*")]
    assert leftovers == []


def test_files_of_the_outbox_are_the_users_alone(life):
    _, _, folder, _ = life
    for path in (folder / "outbox").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
