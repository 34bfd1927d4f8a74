"""Real sites whose rows are protected: trained, charged and refused by the sites themselves."""

from __future__ import annotations

import pandas as pd
import pytest
from ward_tables import table

from truststram_lab import verbs
from truststram_lab.client import TrustStramClient
from truststram_lab.exceptions import (
    InvalidInputError,
    PermissionDeniedError,
    RunStoppedError,
)
from truststram_lab.federated import FederatedClient
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.schemas.privacy import GaussianUse, RecordPlan

WAIT_S = 120.0
BOUNDS = {"dose": (0, 30), "age": (0, 120)}


@pytest.fixture
def federation(shared_session, request):
    """A federation of two, with a name of its own."""
    name = f"p{abs(hash(request.node.name)) % 10**8}"
    verbs.federations(name, "create", sites=["a", "b"])
    return name


def join(federation: str, site: str, frame: pd.DataFrame, ending: list, **given):
    given = {"target": "ill", "site": site, "background": True, "bounds": BOUNDS, **given}
    joined = verbs.join(federation, frame, **given)
    ending.append(joined)
    return joined


def uses_of(run) -> list[GaussianUse]:
    plan = run.snapshot().plan
    noise = plan.config["statistics_noise"]
    return [GaussianUse(noise_multiplier=noise), plan.privacy.use(plan.rounds)]


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox:mu=0.5", "scaffold"])
def test_rows_of_real_sites_are_protected_and_charged_by_the_sites(federation, ending, strategy):
    seed = abs(hash(strategy)) % 10**6
    sites = [join(federation, site, table(seed + n), ending) for n, site in enumerate("ab")]
    run = verbs.federations(federation, "open", rounds=2, epochs=1, dp=4.0, strategy=strategy)
    assert run.status == "completed"
    plan = run.snapshot().plan
    assert isinstance(plan.privacy, RecordPlan)
    assert (plan.privacy.sample_rate, plan.privacy.steps_per_round) == (0.1, 10)
    whole = account(uses_of(run), plan.privacy.delta).epsilon
    assert 0.97 * 4.0 < whole <= 4.004
    for site in sites:
        view = site.wait(timeout_s=WAIT_S).snapshot()
        assert view.epsilon == pytest.approx(whole)
        assert view.budget == pytest.approx(whole)
        (own,) = view.spent
        assert (own.unit, own.adjacency, own.releases) == ("record", "add-or-remove", 3)
        assert own.epsilon == pytest.approx(account(uses_of(run), own.delta).epsilon)
        text = " ".join(site.card().text.split())
        for word in (
            "Record-level differential privacy",
            "at delta 1e-05",
            "DP-SGD (clip 1, noise multiplier",
            "with chance 0.1, in secret",
            "one row more or less",
            "the platform saw noised updates only",
            "Losses, accuracies and row counts that a site reports are outside this number",
            "This site's own ledger of these rows, record-level",
        ):
            assert word in text, word
    # The platform's budget counts the moments, too.
    assert verbs.federations(federation).budget.epsilon_spent == pytest.approx(whole)
    assert "a: This site's own ledger" in " ".join(
        verbs.federations(federation, "budget").card().text.split()
    )


def test_a_client_is_shown_the_federations_budget_and_this_computers_own(
    federation, ending, tmp_path, monkeypatch
):
    owner = TrustStramClient(environment="sandbox")
    tokens = owner.federations.invite(federation, ["a", "c"], keep=True)
    sites = [join(federation, site, table(50 + n), ending) for n, site in enumerate("ab")]
    verbs.federations(federation, "open", rounds=1, epochs=1, dp=4.0)
    own = [site.wait(timeout_s=WAIT_S).snapshot().spent[0] for site in sites]
    client = FederatedClient(auth_token_provider=lambda: tokens[0].token, org_id="default")
    found = client.get_privacy_budget(federation)
    documented = {
        "federation_id", "epsilon", "delta", "rounds_consumed", "budget_remaining",
        "epsilon_spent", "epsilon_budget", "mechanism", "history",
    }  # fmt: skip
    assert found.keys() == documented | {"own"}
    assert found["epsilon"] == found["epsilon_spent"] > 0
    assert sorted(one["epsilon"] for one in found["own"]) == sorted(one.epsilon for one in own)
    assert {one["text"] for one in found["own"]} == {one.text for one in own}
    assert client.get_privacy_budget(found["federation_id"])["own"] == found["own"]
    # Another computer's client is shown the federation's view alone.
    home = TrustStramClient(environment="sandbox").base_url
    monkeypatch.setenv("TRUSTSTRAM_HOME", str(tmp_path / "another"))
    monkeypatch.setenv("TRUSTSTRAM_BASE_URL", home)
    other = FederatedClient(auth_token_provider=lambda: tokens[1].token, org_id="default")
    assert other.get_privacy_budget(federation) == {**found, "own": []}
    for one in (client, other, owner):
        one.close()


def refused(federation: str, ending: list, says: str, frame: pd.DataFrame, **given):
    careful = join(federation, "a", frame, ending, **given)
    join(federation, "b", table(1), ending)
    run = verbs.federations(federation, "open", rounds=1, epochs=1, dp=4.0, background=True)
    with pytest.raises(PermissionDeniedError, match=says):
        careful.wait(timeout_s=WAIT_S)
    run.stop()
    states = {event.state for event in careful.snapshot().events}
    assert "declined_policy" in states
    assert not states & {"uploading", "local_training"}
    return careful


def test_a_function_of_the_sites_own_is_refused_before_it_trains(federation, ending):
    called = []
    refused(
        federation,
        ending,
        r"cannot be clipped and noised from outside.*without --train.*--dp-unit client",
        table(20),
        train=lambda state: called.append(1) or (state, 60, {}),
    )
    assert not called


def test_a_site_without_bounds_is_refused_with_its_columns(federation, ending):
    refused(federation, ending, "'dose' and 1 more has none: give --bounds", table(21), bounds=None)


@pytest.mark.parametrize(
    ("floor", "says"),
    [
        ({"max_clip": 0.5}, "clips updates to 0.5 or less, and of the run's plan the norm is 1"),
        ({"min_noise": 50.0}, "adds noise of at least 50"),
        ({"max_epsilon": 3.9}, "at most 3.9 in a run, and this one would spend 4"),
    ],
)
def test_a_federation_cannot_go_below_the_floor_under_which_rows_may_be_used(
    federation, ending, floor, says
):
    refused(federation, ending, says, table(22), **floor)


def test_a_run_goes_on_by_quorum_without_the_site_that_declined(federation, ending):
    verbs.federations(federation, "invite", "c")
    careful = join(federation, "a", table(40), ending, min_noise=50.0)
    others = [join(federation, site, table(41 + n), ending) for n, site in enumerate("bc")]
    run = verbs.federations(federation, "open", rounds=2, epochs=1, dp=4.0, quorum=2)
    assert run.status == "completed"
    with pytest.raises(PermissionDeniedError, match="adds noise of at least 50"):
        careful.wait(timeout_s=WAIT_S)
    for site in others:
        assert site.wait(timeout_s=WAIT_S).snapshot().spent[0].releases == 3
    assert careful.snapshot().spent[0].releases == 0


def test_a_run_that_needs_all_stops_and_says_who_declined_and_why(federation, ending):
    join(federation, "a", table(43), ending, min_noise=50.0)
    other = join(federation, "b", table(44), ending)
    with pytest.raises(
        RunStoppedError,
        match=r"insufficient_sites: 1 of 2 .*declined: a \(.*adds noise of at least 50",
    ):
        verbs.federations(federation, "open", rounds=2, epochs=1, dp=4.0)
    with pytest.raises(RunStoppedError, match="declined: a"):
        other.wait(timeout_s=WAIT_S)
    assert other.snapshot().spent[0].releases == 1  # its noised means had left


def test_one_data_set_has_one_limit_over_two_federations(federation, ending):
    frame = table(30)
    first = join(federation, "a", frame, ending, dp_limit=4.5)
    join(federation, "b", table(31), ending)
    run = verbs.federations(federation, "open", rounds=1, epochs=1, dp=4.0)
    first.wait(timeout_s=WAIT_S)
    (before,) = first.snapshot().spent
    assert before.limit == 4.5

    other = f"{federation}-other"
    verbs.federations(other, "create", sites=["a", "b"])
    preview = verbs.join(
        other, frame, target="ill", site="a", dry_run=True, rounds_of=run.name
    ).preview
    assert preview.spent[0].epsilon == pytest.approx(before.epsilon)
    assert "goes over the budget of 4.5" in preview.costs[-1]

    second = join(other, "a", frame, ending)
    join(other, "b", table(32), ending)
    refused_run = verbs.federations(other, "open", rounds=1, epochs=1, dp=4.0, background=True)
    with pytest.raises(
        PermissionDeniedError, match=r"own ledger refuses the .* round .*budget of 4.5"
    ):
        second.wait(timeout_s=WAIT_S)
    refused_run.stop()
    (after,) = second.snapshot().spent
    assert after.epsilon <= 4.5
    events = [e for e in second.snapshot().events if e.state == "declined_policy"]
    assert events[0].kind == "training" or after.epsilon == pytest.approx(before.epsilon)
    assert not [
        e for e in second.snapshot().events if (e.kind, e.state) == ("training", "uploading")
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"dp": 3.0, "batch_size": 8}, "has no batch size"),
        ({"dp": 3.0, "sample_rate": 1.5}, "1.5 is no chance"),
        ({"sample_rate": 0.5}, "belongs to --dp"),
        ({"dp": 3.0, "dp_statistics": "exact"}, "noised or bounds"),
        ({"dp": 3.0, "dp_unit": "client", "sample_rate": 0.5}, "hides sites"),
        ({"dp": 3.0, "delta": 0.5}, "shown in full"),
    ],
)
def test_what_no_private_run_can_have_is_told_before_it_opens(federation, ending, given, says):
    join(federation, "a", table(0), ending)
    with pytest.raises(InvalidInputError, match=says):
        verbs.federations(federation, "open", **given)
    assert not verbs.federations(federation).runs


def test_a_limit_that_is_no_number_is_refused(federation, ending):
    with pytest.raises(InvalidInputError, match="--dp-limit 0 is no epsilon"):
        join(federation, "a", table(0), ending, dp_limit=0.0)
