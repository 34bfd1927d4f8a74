"""What the verbs about federations do where no platform is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

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
