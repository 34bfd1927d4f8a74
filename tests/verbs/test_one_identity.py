"""One identity, one participant: whoever comes second is told who is there."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from truststram_lab import verbs
from truststram_lab.exceptions import ConflictError
from truststram_lab.federated import FederatedClient
from truststram_lab.federated.participation import files
from truststram_lab.verbs import session as sessions

WAIT_S = 120.0


def table(seed: int, rows: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    ill = rng.random(rows) < 0.5
    dose = rng.normal(0, 1, rows) + 3 * ill
    return pd.DataFrame({"dose": dose, "ill": np.where(ill, "yes", "no")})


def join(federation, site, frame, **given):
    return verbs.join(federation, frame, target="ill", site=site, background=True, **given)


def test_a_site_on_a_second_computer_is_told_who_holds_it_and_changes_nothing(
    shared_session, ending, tmp_path, monkeypatch
):
    verbs.federations("twice", "create", sites=["a", "b"])
    client = sessions.require("this test").client
    token = client.federations.invite("twice", ["a"])[0].token
    monkeypatch.setenv("TRUSTSTRAM_FL_TOKEN", token)
    first = verbs.join("twice", table(0), target="ill", background=True)
    ending.append(first)
    before = verbs.federations("twice").preflight
    name = files.device_name()
    monkeypatch.setattr(files.config, "home", lambda: tmp_path)  # as another computer has it
    other = table(1).rename(columns={"dose": "length"})
    with pytest.raises(ConflictError, match=rf"Device '{name}' takes part as 'twice/a' since 20"):
        verbs.join("twice", other, target="ill", background=True)
    assert verbs.federations("twice").preflight == before


def test_a_device_with_another_ones_token_is_told_who_holds_it(shared_session):
    client = sessions.require("this test").client
    verbs.federations("devices", "create", sites=["a"])
    token = client.federations.invite("devices", ["a"])[0].token
    first = FederatedClient(auth_token_provider=lambda: token, device_identifier="ward-3")
    second = FederatedClient(auth_token_provider=lambda: token, device_identifier="ward-4")
    assert first.get_round_assignment() is None
    with pytest.raises(ConflictError, match="Device 'ward-3' takes part as"):
        second.get_round_assignment()


def test_a_restarted_kernel_goes_on_as_the_device_that_it_was(shared_session):
    client = sessions.require("this test").client
    verbs.federations("restarted", "create", sites=["a"])
    token = client.federations.invite("restarted", ["a"])[0].token
    for _ in range(2):  # no identifier: each makes one up
        device = FederatedClient(auth_token_provider=lambda: token)
        assert device.get_round_assignment() is None
        device.close()


def test_a_computers_name_is_random_and_stays(tmp_path):
    name = files.device_name(tmp_path / "home")
    assert re.fullmatch("device-[0-9a-f]{12}", name)
    assert files.device_name(tmp_path / "home") == name
    assert files.device_name(tmp_path / "other") != name
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["device"]
