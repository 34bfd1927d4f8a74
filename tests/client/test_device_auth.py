"""A device's tokens, against a real platform: kept fresh by any number of notebooks at once."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from truststram_lab import sandbox
from truststram_lab.auth import store as token_store
from truststram_lab.client.device_auth import DeviceAuthClient
from truststram_lab.exceptions import (
    AuthenticationError,
    InvalidInputError,
    PlatformUnavailableError,
)

LONG = 10_000  # seconds before its end: every token ends sooner


@pytest.fixture(autouse=True)
def _in_memory(client, monkeypatch):
    monkeypatch.setenv("TRUSTSTRAM_TOKEN_STORAGE", "memory")
    yield
    token_store._memory.clear()


def issued(client, name: str = "icu/north") -> str:
    return client.accounts.bootstrap_token(name).bootstrap_token


def who(token: str) -> httpx.Response:
    return httpx.get(
        f"{sandbox.target()().base_url}/api/v1/whoami",
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
    )


def made(name: str = "d-1") -> DeviceAuthClient:
    return DeviceAuthClient("https://api.edgeml.io", "org_123", name)


def test_a_device_is_bootstrapped_once_and_its_token_is_the_sites(client) -> None:
    device, token = made(), issued(client)
    tokens = asyncio.run(device.bootstrap(bootstrap_bearer_token=token))
    assert (tokens.expires_in, tokens.device_identifier) == (900, "d-1")
    assert device.get_access_token_sync() == tokens.access_token
    assert who(tokens.access_token).json()["name"] == "icu/north"
    with pytest.raises(AuthenticationError, match="was used or has expired"):
        device.bootstrap_sync(token)
    for shown in (repr(device), repr(tokens), str(tokens)):
        assert tokens.access_token not in shown
        assert tokens.refresh_token not in shown


def test_a_token_that_ends_soon_is_replaced_also_beside_a_running_loop(client) -> None:
    device = made("d-2")
    device.bootstrap_sync(issued(client))
    first = device.get_access_token_sync()

    async def cell() -> tuple[str, str]:
        sync = device.get_access_token_sync(LONG)
        return sync, await device.get_access_token()

    second, third = asyncio.run(cell())
    assert first != second == third
    assert who(second).status_code == 200


def test_threads_that_refresh_at_once_share_one_refresh(client) -> None:
    device = made("d-3")
    device.bootstrap_sync(issued(client))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: device.get_access_token_sync(LONG), range(16)))
    assert who(found[-1]).status_code == 200  # no reuse was seen: the family lives
    assert who(device.get_access_token_sync()).status_code == 200


def test_notebooks_of_one_user_never_trip_over_each_other(client, tmp_path, monkeypatch) -> None:
    keyring = tmp_path / "keyring.json"
    environment = {
        **os.environ,
        "TRUSTSTRAM_TOKEN_STORAGE": "keyring",
        "PYTHON_KEYRING_BACKEND": "shared_keyring.Keyring",
        "TEST_KEYRING": str(keyring),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
    }
    begin = (
        "import sys\n"
        "from truststram_lab.client.device_auth import DeviceAuthClient\n"
        "device = DeviceAuthClient(org_id='org_123', device_identifier='shared')\n"
    )
    first = subprocess.run(
        [sys.executable, "-c", f"{begin}device.bootstrap_sync(sys.argv[1])", issued(client)],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    refresh = f"{begin}print([device.get_access_token_sync({LONG}) for _ in range(5)][-1])"
    notebooks = [
        subprocess.Popen(
            [sys.executable, "-c", refresh], env=environment, stdout=-1, stderr=-1, text=True
        )
        for _ in range(6)
    ]
    ended = [(one.communicate(timeout=120), one.returncode) for one in notebooks]
    assert [code for _, code in ended] == [0] * 6, [said[1] for said, _ in ended]
    last = subprocess.run(
        [sys.executable, "-c", f"{begin}print(device.get_access_token_sync())"],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert who(last.stdout.strip()).status_code == 200


def test_a_lost_answer_is_asked_for_again(client, monkeypatch) -> None:
    device = made("d-4")
    device.bootstrap_sync(issued(client))
    keep, lost = device._keep, []

    def lose(tokens) -> None:
        lost.append(tokens)
        raise KeyboardInterrupt  # the kernel dies between the answer and the store

    monkeypatch.setattr(device, "_keep", lose)
    with pytest.raises(KeyboardInterrupt):
        device.get_access_token_sync(LONG)
    monkeypatch.setattr(device, "_keep", keep)
    again = made("d-4").get_access_token_sync(LONG)
    assert again == lost[0].access_token
    assert who(again).status_code == 200


def test_without_the_platform_the_old_token_serves_to_its_end(client, monkeypatch) -> None:
    device = made("d-5")
    tokens = device.bootstrap_sync(issued(client))

    def away(*_: object) -> None:
        raise PlatformUnavailableError("Nobody answers.")

    monkeypatch.setattr(device, "_sent", away)
    assert device.get_access_token_sync(LONG) == tokens.access_token
    monkeypatch.setattr(time, "time", lambda: tokens_end(tokens) + 1)
    with pytest.raises(PlatformUnavailableError):
        device.get_access_token_sync()


def tokens_end(tokens) -> float:
    from datetime import datetime

    return datetime.fromisoformat(tokens.expires_at).timestamp()


def test_a_revoked_device_is_told_to_bootstrap_again(client) -> None:
    device = made("d-6")
    tokens = device.bootstrap_sync(issued(client))
    asyncio.run(device.revoke())
    assert who(tokens.access_token).status_code == 401
    with pytest.raises(AuthenticationError, match="call bootstrap"):
        device.get_access_token_sync()
    device.revoke_sync()  # without tokens there is nothing to do


def test_somebody_elses_use_of_a_refresh_token_ends_the_device(client) -> None:
    device = made("d-7")
    tokens = device.bootstrap_sync(issued(client))
    device.get_access_token_sync(LONG)
    stolen = httpx.post(
        f"{sandbox.target()().base_url}/api/v1/device-auth/refresh",
        json={"refresh_token": tokens.refresh_token},
        trust_env=False,
    )
    assert stolen.status_code == 401
    with pytest.raises(AuthenticationError, match="bootstrap the device again"):
        device.get_access_token_sync(LONG)


def test_what_is_kept_and_damaged_is_not_used(client) -> None:
    device = made("d-8")
    device.bootstrap_sync(issued(client))
    token_store._memory[device._name] = json.dumps({"access_token": 1})
    with pytest.raises(AuthenticationError, match="has no tokens"):
        device.get_access_token_sync()


def test_a_device_without_a_name_is_refused(home, monkeypatch) -> None:
    monkeypatch.delenv("TRUSTSTRAM_DEVICE_ID", raising=False)
    with pytest.raises(InvalidInputError, match="device_identifier="):
        DeviceAuthClient("https://api.edgeml.io", "org_123")
    monkeypatch.setenv("TRUSTSTRAM_DEVICE_ID", "ward-pc")
    assert DeviceAuthClient().device_identifier == "ward-pc"
