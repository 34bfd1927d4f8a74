"""Laws of devices' tokens: each refresh token serves once, and a family ends for good."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from machines import on_disk
from platform_process import PlatformProcess, Run, ok, refused

from truststram_lab.exceptions import AuthenticationError, InvalidInputError
from truststram_lab.schemas.accounts import (
    DeviceBootstrap,
    DeviceRefresh,
    DeviceRevoke,
    DeviceTokens,
    IssueBootstrap,
)
from truststram_lab.server.services.accounts import ROLE_SCOPES, AccountsService
from truststram_lab.server.services.device_tokens import FAMILY_S, DeviceTokensService
from truststram_lab.server.settings import Settings
from truststram_lab.server.stores.engine import open_engine
from truststram_lab.server.stores.migrations import upgrade


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


class House:
    """The services on a database of their own, with a clock that stands until it is moved."""

    def __init__(self, home: Path) -> None:
        where = Settings(home=home)
        self.engine = open_engine(where.url)
        upgrade(self.engine, "test")
        self.clock = Clock()
        self.accounts = AccountsService(self.engine, where, self.clock)
        self.tokens = DeviceTokensService(self.engine, self.accounts, where, self.clock)
        self.owner = self.accounts.authenticate(self.accounts.ensure_owner(None))

    def bootstrap(self, **asked: object) -> DeviceTokens:
        issued = self.tokens.issue_bootstrap(self.owner, IssueBootstrap(name="icu/north"))
        request = DeviceBootstrap(device_identifier="d", **asked)
        return self.tokens.bootstrap(issued.bootstrap_token, request)

    def refresh(self, token: str, nonce: str | None = None) -> DeviceTokens:
        return self.tokens.refresh(DeviceRefresh(refresh_token=token, nonce=nonce))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.engine.dispose()


class Family(RuleBasedStateMachine):
    """What the platform says of a family is what a list of its refresh tokens says."""

    @initialize(ttl=st.sampled_from((1, 900, 3600)))
    def begin(self, ttl: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.house = House(Path(self.folder.name))
        self.ends_s = self.house.clock.now_s + FAMILY_S
        self.ttl = ttl
        self.given = [self.house.bootstrap(access_ttl_seconds=ttl)]
        self.issued_s = [self.house.clock.now_s]
        self.nonces: list[str | None] = []
        self.alive = True

    @property
    def lives(self) -> bool:
        return self.alive and self.house.clock.now_s < self.ends_s

    @rule(seconds=st.sampled_from((0.5, 1.0, 899.0, 3600.0, 86_400.0, 15 * 86_400.0)))
    def wait(self, seconds: float) -> None:
        self.house.clock.now_s += seconds

    @rule(with_nonce=st.booleans())
    def refresh(self, with_nonce: bool) -> None:
        nonce = secrets.token_hex(16) if with_nonce else None
        token = self.given[-1].refresh_token
        if not self.lives:
            with pytest.raises(AuthenticationError):
                self.house.refresh(token, nonce)
            return
        self.given.append(self.house.refresh(token, nonce))
        self.issued_s.append(self.house.clock.now_s)
        self.nonces.append(nonce)

    @precondition(lambda self: self.nonces and self.nonces[-1] and self.lives)
    @rule()
    def lose_the_answer_and_ask_again(self) -> None:
        again = self.house.refresh(self.given[-2].refresh_token, self.nonces[-1])
        last = self.given[-1]
        assert (again.access_token, again.refresh_token, again.expires_at) == (
            last.access_token, last.refresh_token, last.expires_at
        )  # fmt: skip

    @precondition(lambda self: len(self.given) > 1)
    @rule(data=st.data(), known=st.booleans())
    def use_a_spent_one(self, data: st.DataObject, known: bool) -> None:
        at = data.draw(st.integers(0, len(self.given) - 2))
        if known and at == len(self.given) - 2:
            return  # the repetition of before
        nonce = self.nonces[at] if known else secrets.token_hex(16)
        with pytest.raises(AuthenticationError):
            self.house.refresh(self.given[at].refresh_token, nonce)
        self.alive = False

    @precondition(lambda self: len(self.given) > 3)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(self.given)).refresh_token
        self.house.tokens.revoke(DeviceRevoke(refresh_token=token))
        self.alive = False

    @invariant()
    def an_access_token_lives_to_its_end_and_not_a_moment_longer(self) -> None:
        for tokens, issued_s in zip(self.given, self.issued_s, strict=True):
            ends_s = min(issued_s + self.ttl, self.ends_s)
            self.house.accounts.forget()
            if self.alive and self.house.clock.now_s < ends_s:
                found = self.house.accounts.authenticate(tokens.access_token)
                assert found.name == "icu/north"
                assert found.scopes == ROLE_SCOPES["site"]
            else:
                with pytest.raises(AuthenticationError):
                    self.house.accounts.authenticate(tokens.access_token)

    @invariant()
    def a_refresh_token_opens_no_door(self) -> None:
        with pytest.raises(AuthenticationError):
            self.house.accounts.authenticate(self.given[-1].refresh_token)

    def teardown(self) -> None:
        if hasattr(self, "house"):
            self.house.engine.dispose()
            self.folder.cleanup()


def test_a_family_is_a_list_of_tokens_of_which_only_the_last_serves() -> None:
    run_state_machine_as_test(
        Family,
        settings=on_disk(15, 12),
    )


def test_of_many_who_refresh_at_once_one_is_served_and_the_family_ends(house: House) -> None:
    first = house.bootstrap()

    def refresh(_: int) -> DeviceTokens | None:
        try:
            return house.refresh(first.refresh_token)
        except AuthenticationError:
            return None

    with ThreadPoolExecutor(8) as pool:
        served = [found for found in pool.map(refresh, range(8)) if found]
    assert len(served) == 1
    with pytest.raises(AuthenticationError):
        house.refresh(served[0].refresh_token)
    with pytest.raises(AuthenticationError):
        house.accounts.authenticate(served[0].access_token)


def test_of_many_who_repeat_one_request_all_get_its_answer(house: House) -> None:
    first, nonce = house.bootstrap(), secrets.token_hex(16)
    with ThreadPoolExecutor(8) as pool:
        served = list(pool.map(lambda _: house.refresh(first.refresh_token, nonce), range(8)))
    assert len({found.refresh_token for found in served}) == 1
    assert house.refresh(served[0].refresh_token)


def test_a_bootstrap_token_serves_once_and_until_its_end(house: House) -> None:
    issue = IssueBootstrap(name="icu/north", expires_in_seconds=60)
    request = DeviceBootstrap(device_identifier="d")
    token = house.tokens.issue_bootstrap(house.owner, issue).bootstrap_token
    with pytest.raises(AuthenticationError):
        house.accounts.authenticate(token)
    house.tokens.bootstrap(token, request)
    with pytest.raises(AuthenticationError, match="was used or has expired"):
        house.tokens.bootstrap(token, request)
    late = house.tokens.issue_bootstrap(house.owner, issue).bootstrap_token
    house.clock.now_s += 60
    with pytest.raises(AuthenticationError, match="was used or has expired"):
        house.tokens.bootstrap(late, request)


@pytest.mark.parametrize("ttl", [0, 3601])
def test_an_access_token_lives_an_hour_at_most(house: House, ttl: int) -> None:
    with pytest.raises(InvalidInputError, match=f"access_ttl_seconds is {ttl}") as caught:
        house.bootstrap(access_ttl_seconds=ttl)
    assert caught.value.field == "access_ttl_seconds"


def test_scopes_narrow_and_an_unknown_one_names_the_nearest(house: House) -> None:
    narrow = house.bootstrap(scopes=["heartbeat:write", "identity:read"])
    found = house.accounts.authenticate(narrow.access_token)
    assert found.scopes == {"identity:read"}
    with pytest.raises(InvalidInputError, match="did you mean 'devices:write'"):
        house.bootstrap(scopes=["device:write"])


def test_a_device_takes_part_as_its_site_over_http(platform: PlatformProcess) -> None:
    run = Run(platform, "device-auth", sites=1)
    owner, nobody = platform.client(), platform.client(None)
    path = "/api/v1/device-auth"
    issued = owner.post(f"{path}/bootstrap-tokens", json={"name": "device-auth/site 1"})
    assert issued.status_code == 201
    assert issued.headers["cache-control"] == "no-store"
    token = issued.json()["bootstrap_token"]
    body = {"org_id": "org_123", "device_identifier": "d", "scopes": ["devices:write"]}
    refused(nobody.post(f"{path}/bootstrap", json=body), 401, "authentication_failed")
    bearer = {"Authorization": f"Bearer {token}"}
    long = {**body, "access_ttl_seconds": 7200}
    refused(nobody.post(f"{path}/bootstrap", json=long, headers=bearer), 422, "invalid_input")
    first = ok(nobody.post(f"{path}/bootstrap", json=body, headers=bearer))
    assert (first["token_type"], first["expires_in"]) == ("Bearer", 900)
    device = platform.client(first["access_token"])
    assert ok(device.get("/api/v1/training/rounds"))[0]["run"] == run.name
    refused(device.get("/api/v1/models"), 403, "forbidden")
    spent = {"refresh_token": first["refresh_token"]}
    second = ok(nobody.post(f"{path}/refresh", json=spent))
    refused(nobody.post(f"{path}/refresh", json=spent), 401, "authentication_failed")
    refused(device.get("/api/v1/whoami"), 401, "authentication_failed")
    latest = platform.client(second["access_token"])
    refused(latest.get("/api/v1/whoami"), 401, "authentication_failed")
    # the site's own invitation is another credential, and goes on
    assert ok(run.clients[0].get("/api/v1/whoami"))["name"] == "device-auth/site 1"
    for secret in (token, first["access_token"], first["refresh_token"]):
        assert secret not in platform.log
        for file in platform.home.glob("platform.db*"):
            assert secret.encode() not in file.read_bytes()


def test_revoking_ends_a_device_at_once(platform: PlatformProcess) -> None:
    path, nobody = "/api/v1/device-auth", platform.client(None)
    issued = ok(platform.client().post(f"{path}/bootstrap-tokens", json={"name": "ward"}))
    bearer = {"Authorization": f"Bearer {issued['bootstrap_token']}"}
    tokens = ok(nobody.post(f"{path}/bootstrap", json={"device_identifier": "d"}, headers=bearer))
    device = platform.client(tokens["access_token"])
    assert ok(device.get("/api/v1/whoami"))["name"] == "ward"
    body = {"refresh_token": tokens["refresh_token"], "reason": "sdk_revoke"}
    for _ in range(2):
        assert nobody.post(f"{path}/revoke", json=body).status_code == 204
    refused(device.get("/api/v1/whoami"), 401, "authentication_failed")
