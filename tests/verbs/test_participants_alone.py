"""What the verbs about federations do where no platform is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import truststram_lab
from truststram_lab import sandbox, verbs
from truststram_lab.exceptions import NotSignedInError


def table(rows: int = 40) -> pd.DataFrame:
    return pd.DataFrame({"dose": np.arange(float(rows)), "ill": ["no", "yes"] * (rows // 2)})


def test_a_dry_run_needs_no_platform_at_all(platform_home):
    found = verbs.join("icu", table(), target="ill", dry_run=True, no_statistics=True)
    assert "Nothing was sent" in found.card().text
    assert found.preview.statistics_bytes == 0
    assert sandbox.status() is None


def test_before_signing_in_both_verbs_say_how(platform_home):
    with pytest.raises(NotSignedInError, match="%ts_login --sandbox"):
        verbs.federations()
    with pytest.raises(NotSignedInError, match="%ts_login --sandbox"):
        verbs.join("icu", table(), target="ill")


DRY_RUN = """
import sys
import pandas as pd
from truststram_lab import verbs
opened = []
sys.addaudithook(lambda event, args: opened.append(event) if event.startswith("socket.") else None)
frame = pd.DataFrame({"dose": [float(n) for n in range(40)], "ill": ["no", "yes"] * 20})
verbs.join("icu", frame, target="ill", site="a", dry_run=True).card()
print("sockets:", opened)
"""


def test_a_dry_run_opens_no_socket(tmp_path):
    root = str(Path(truststram_lab.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root, "TRUSTSTRAM_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", DRY_RUN], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "sockets: []\n", done.stderr
    assert not list(tmp_path.iterdir())
