"""Files in parts: gone on with where they were, checked before they count, never half there."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import signal
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from platform_process import PlatformProcess, ok, refused
from sklearn.linear_model import LinearRegression, LogisticRegression

from truststram_lab.client import TrustStramClient

PART = 100_000


def content_of(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def place(content: bytes) -> str:
    return f"/api/v1/uploads/{hashlib.sha256(content).hexdigest()}"


def send(client, content: bytes, offset: int, part: bytes):
    query = {"size_bytes": len(content), "offset": offset}
    return client.put(place(content), params=query, content=part)


def state(client, content: bytes) -> dict:
    return ok(client.get(place(content), params={"size_bytes": len(content)}))


def blob(client, content: bytes):
    return client.get(f"/api/v1/blobs/{hashlib.sha256(content).hexdigest()}")


def test_a_file_counts_once_its_last_part_is_there(platform: PlatformProcess) -> None:
    client, content = platform.client(), content_of(3 * PART + 7)
    assert state(client, content)["offset"] == 0
    for offset in range(0, len(content), PART):
        assert blob(client, content).status_code == 404
        said = ok(send(client, content, offset, content[offset : offset + PART]))
    assert said["complete"]
    assert blob(client, content).content == content
    again = ok(send(client, content, 0, content[:PART]))  # who begins anew is told so
    assert (again["complete"], again["offset"]) == (True, len(content))


def test_a_killed_platform_goes_on_where_the_file_was(unstarted: PlatformProcess) -> None:
    client, content = unstarted.start().client(), content_of(4 * PART, 1)
    for offset in (0, PART):
        ok(send(client, content, offset, content[offset : offset + PART]))
    unstarted.end(signal.SIGKILL)
    client = unstarted.start().client()
    there = state(client, content)["offset"]
    assert there == 2 * PART
    ok(send(client, content, there, content[there:]))
    assert blob(client, content).content == content


def test_a_part_that_is_sent_twice_changes_nothing(platform: PlatformProcess) -> None:
    client, content = platform.client(), content_of(2 * PART, 2)
    for _ in range(2):
        assert ok(send(client, content, 0, content[:PART]))["offset"] == PART
    ok(send(client, content, PART, content[PART:]))
    assert blob(client, content).content == content


def test_other_bytes_than_announced_leave_nothing(platform: PlatformProcess) -> None:
    client, content = platform.client(), content_of(PART, 3)
    other = content[:-1] + bytes([content[-1] ^ 1])
    assert refused(send(client, content, 0, other), 422, "invalid_input")["field"] == "sha256"
    assert state(client, content)["offset"] == 0
    assert blob(client, content).status_code == 404


@pytest.mark.parametrize("offset", [1, PART - 1, 5 * PART])
def test_a_gap_or_an_overlap_is_refused_with_the_place(
    platform: PlatformProcess, offset: int
) -> None:
    client, content = platform.client(), content_of(6 * PART, 4 + offset)
    problem = refused(send(client, content, offset, content[:PART]), 409, "conflict")
    assert "goes on at byte 0" in problem["detail"]


def test_more_than_announced_is_refused(platform: PlatformProcess) -> None:
    client, content = platform.client(), content_of(PART, 5)
    answer = send(client, content, 0, content + b"x")
    assert refused(answer, 422, "invalid_input")["field"] == "size_bytes"
    query = {"size_bytes": 2**40, "offset": 0}
    answer = client.put(place(content), params=query, content=b"x")
    assert refused(answer, 422, "invalid_input")["field"] == "size_bytes"


def test_a_part_has_a_largest_size(platform: PlatformProcess) -> None:
    client, content = platform.client(), content_of(17 * 2**20, 6)
    refused(send(client, content, 0, content), 413, "payload_too_large")
    assert state(client, content)["offset"] == 0


def test_the_same_file_at_once_from_many_is_whole(platform: PlatformProcess) -> None:
    content = content_of(10 * PART, 7)
    clients = [platform.client() for _ in range(4)]

    def upload(client) -> None:
        while not (now := state(client, content))["complete"]:
            offset = now["offset"]
            send(client, content, offset, content[offset : offset + PART])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upload, clients))
    assert blob(clients[0], content).content == content


def test_another_organisation_has_a_file_of_its_own(platform: PlatformProcess) -> None:
    content = content_of(PART, 8)
    client = platform.client()
    ok(client.post("/api/v1/federations", json={"name": "sites"}))
    token = ok(client.post("/api/v1/federations/sites/invite", json={"participants": ["a"]}))
    site = platform.client(token[0]["token"])
    assert site.get(place(content), params={"size_bytes": PART}).status_code == 403


# Estimators -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(platform: PlatformProcess):
    with TrustStramClient(api_key=platform.state()["api_key"], base_url=platform.url) as made:
        yield made


def fitted(kind=LogisticRegression):
    x = np.random.default_rng(0).normal(size=(60, 2))
    return kind().fit(x, (x[:, 0] > 0).astype(int))


def test_an_estimators_pickle_becomes_a_version_without_code(client) -> None:
    model = client.models.create("uploaded", type="classification", version="2.1.0")
    first = client.models.upload_artifacts(model.id, io.BytesIO(pickle.dumps(fitted())))
    assert (first.label, first.format, first.signature.classes) == ("2.1.0", "skops", ["0", "1"])
    assert zipfile.is_zipfile(io.BytesIO(client.models.download("uploaded")))
    second = client.models.upload_artifacts(
        "uploaded", io.BytesIO(client.models.download("uploaded"))
    )
    assert (second.sequence, second.weights_sha256) == (2, first.weights_sha256)


def test_a_bomb_is_refused_by_its_name_and_nothing_is_registered(client, tmp_path) -> None:
    from truststram_lab.exceptions import InvalidInputError

    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    client.models.create("bombed")
    with pytest.raises(InvalidInputError, match=r"posix\.system") as caught:
        client.models.upload_artifacts("bombed", io.BytesIO(pickle.dumps(Bomb())))
    assert caught.value.field == "file"
    assert not canary.exists()
    assert client.models.get("bombed").version_count == 0


def test_a_zip_that_unpacks_to_gigabytes_is_refused(client) -> None:
    from truststram_lab.exceptions import InvalidInputError

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"{number}.npy", bytes(50_000_000))
    client.models.create("packed")
    with pytest.raises(InvalidInputError, match="unpacks to"):
        client.models.upload_artifacts("packed", packed.seek(0) or packed)


def test_a_pickle_that_asks_for_much_memory_is_refused(client) -> None:
    from truststram_lab.exceptions import InvalidInputError

    # bytearray(10**11): not on the list, before any memory is asked for; and an array that is.
    large = b"\x80\x04\x8c\x08builtins\x8c\tbytearray\x93\x8a\x05\x00\xe8vH\x17\x85R."
    client.models.create("large")
    with pytest.raises(InvalidInputError):
        client.models.upload_artifacts("large", io.BytesIO(large))


def test_a_model_of_another_task_is_refused(client) -> None:
    from truststram_lab.exceptions import InvalidInputError

    client.models.create("sorted", type="classification")
    with pytest.raises(InvalidInputError, match="for regression"):
        client.models.upload_artifacts("sorted", io.BytesIO(pickle.dumps(fitted(LinearRegression))))


def test_a_file_that_was_never_uploaded_is_refused(platform: PlatformProcess) -> None:
    owner = platform.client()
    ok(owner.post("/api/v1/models", json={"name": "empty"}))
    answer = owner.post("/api/v1/models/empty/artifacts", json={"sha256": "0" * 64})
    assert refused(answer, 422, "invalid_input")["field"] == "sha256"


def test_a_file_as_text_or_without_bytes_is_one_sentence(client, tmp_path) -> None:
    from truststram_lab.exceptions import InvalidInputError, NotFoundError

    client.models.create("bad")
    with pytest.raises(InvalidInputError, match="opened as text"):
        client.models.upload_artifacts("bad", io.StringIO("text"))
    with pytest.raises(InvalidInputError, match="empty"):
        client.models.upload_artifacts("bad", io.BytesIO())
    with pytest.raises(InvalidInputError, match="is no file"):
        client.models.upload_artifacts("bad", fitted())
    with pytest.raises(NotFoundError, match="no file"):
        client.models.upload_artifacts("bad", tmp_path / "missing.pkl")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_gigabyte_goes_up_in_flat_memory(unstarted: PlatformProcess, tmp_path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        for seed in range(16):
            file.write(content_of(64 * 2**20 - (seed == 15), seed))
    unstarted.start()

    def resident() -> int:
        lines = Path(f"/proc/{unstarted.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024

    with TrustStramClient(
        api_key=unstarted.state()["api_key"], base_url=unstarted.url
    ) as uploading:
        uploading.blobs.upload(io.BytesIO(b"warm"))
        before = resident()
        sha256 = uploading.blobs.upload(path)
    assert resident() - before < 150 * 2**20
    stored = list((unstarted.home / "blobs").glob(f"org_*/*/{sha256}"))
    assert stored[0].stat().st_size == path.stat().st_size


@pytest.mark.long
def test_a_full_disk_is_said_and_what_came_before_is_kept(tmp_path) -> None:
    import resource
    import subprocess
    import sys

    # A limit on file sizes fails a write as a full disk does, and needs no privileges.
    script = f"""
import hashlib, resource, signal
from pathlib import Path
from truststram_lab.exceptions import InsufficientResourcesError
from truststram_lab.server.services.uploads import UploadsService
from truststram_lab.server.stores.blobs import BlobStore
from truststram_lab.server.stores.engine import open_engine
from truststram_lab.server.stores.migrations import upgrade
home = Path({str(tmp_path)!r})
engine = open_engine(f"sqlite:///{{home / 'p.db'}}")
upgrade(engine, "test")
uploads = UploadsService(engine, BlobStore(home / "blobs"))
org, content = "org_" + "0" * 32, bytes(range(256)) * 4096
sha256 = hashlib.sha256(content).hexdigest()
uploads.append(org, sha256, len(content), 0, content[:400_000])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
try:
    uploads.append(org, sha256, len(content), 400_000, content[400_000:])
except InsufficientResourcesError as error:
    print(error.message)
else:
    raise SystemExit("it was stored")
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
there = uploads.state(org, sha256, len(content)).offset
assert there == 400_000, there
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "make room and send the rest" in done.stdout
    assert resource.getrlimit(resource.RLIMIT_FSIZE)
