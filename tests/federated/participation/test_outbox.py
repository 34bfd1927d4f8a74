"""What an outbox promises about its files."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.exceptions import ConfigurationError, ConflictError
from truststram_lab.federated.participation import Outbox, Parcel, outbox_folder
from truststram_lab.federated.participation.files import folder_name


def parcel(number=1, body=b"body", run="run_1", **state):
    return Parcel(f"{run}_{number}", run, "icu-1", "training", number, body, state)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "a" / "site"


def test_a_parcel_comes_back_as_it_was_put_after_a_restart(folder):
    whole = parcel(body=b"\0\xff" * 1000, residual=b"r" * 10, empty=b"", gone=None)
    with Outbox(folder) as outbox:
        outbox.put(whole)
    with Outbox(folder) as outbox:
        assert outbox.waiting() == ["run_1_1"]
        assert outbox.get("run_1_1") == whole
        assert outbox.get("run_1_2") is None
        assert not outbox.is_sent("run_1_1")


def test_a_round_has_one_update_before_and_after_its_receipt(folder):
    with Outbox(folder) as outbox:
        outbox.put(parcel())
        outbox.put(parcel())
        with pytest.raises(ConflictError, match="Round 1 of run icu-1 has an update already"):
            outbox.put(parcel(body=b"other"))
        outbox.settle(parcel())
        with pytest.raises(ConflictError):
            outbox.put(parcel(body=b"other"))
        outbox.put(parcel())
        assert outbox.waiting() == []


def test_the_sites_state_counts_from_the_receipt_and_not_before(folder):
    with Outbox(folder) as outbox:
        outbox.put(parcel(residual=b"1"))
        assert outbox.state("residual") is None
        outbox.settle(parcel(residual=b"1"))
        assert outbox.state("residual") == b"1"
        outbox.put(parcel(2, residual=b"2"))
        outbox.drop("run_1_2")
        assert outbox.state("residual") == b"1"
        outbox.settle(parcel(3, residual=None))
        assert outbox.state("residual") is None


def test_settling_again_after_a_crash_gives_the_same_files(folder):
    with Outbox(folder) as outbox:
        outbox.put(parcel(residual=b"1"))
        outbox.settle(parcel(residual=b"1"))
        outbox.settle(parcel(residual=b"1"))
    lines = (folder / "sent.jsonl").read_text().splitlines()
    [entry] = map(json.loads, lines)
    assert entry["sha256"] == parcel().sha256
    assert entry["size_bytes"] == 4


def test_a_ledger_line_that_was_cut_off_is_written_again(folder):
    with Outbox(folder) as outbox:
        outbox.settle(parcel(1))
        outbox.put(parcel(2))
    with (folder / "sent.jsonl").open("a") as file:
        file.write('{"round_id": "run_1_2", "sha')
    with Outbox(folder) as outbox:
        assert outbox.is_sent("run_1_1")
        assert not outbox.is_sent("run_1_2")
        outbox.settle(parcel(2))
    with Outbox(folder) as outbox:
        assert outbox.is_sent("run_1_1")
        assert outbox.is_sent("run_1_2")


def test_a_later_receipt_of_the_run_clears_what_it_left_behind(folder):
    with Outbox(folder) as outbox:
        outbox.put(parcel(1))
        outbox.put(parcel(1, run="run_2"))
        outbox.put(parcel(3))
        outbox.settle(parcel(2))
        assert sorted(outbox.waiting()) == ["run_1_3", "run_2_1"]


def test_stored_updates_are_listed_in_the_order_in_which_they_were_stored(folder):
    with Outbox(folder) as outbox:
        for place, number in enumerate((3, 1, 2)):
            outbox.put(parcel(number))
            os.utime(folder / f"run_1_{number}.update", ns=(place, 10**18 * 2 + place))
        assert outbox.waiting() == ["run_1_3", "run_1_1", "run_1_2"]


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_an_update_with_one_changed_bit_is_never_sent(tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("changed") / "site"
    with Outbox(folder) as outbox:
        outbox.put(parcel(body=b"b" * 50, residual=b"r" * 20))
        path = folder / "run_1_1.update"
        content = bytearray(path.read_bytes())
        content[place % len(content)] ^= 1 << bit
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"run_1_1\.update is damaged"):
            outbox.get("run_1_1")


def test_a_cut_off_update_is_said_and_not_skipped(folder):
    with Outbox(folder) as outbox:
        outbox.put(parcel())
        path = folder / "run_1_1.update"
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(ConfigurationError, match="is damaged"):
            outbox.waiting()
        with pytest.raises(ConfigurationError, match="is damaged"):
            outbox.get("run_1_1")


def test_a_second_participant_is_told_who_holds_the_name(folder):
    with (
        Outbox(folder),
        pytest.raises(ConflictError, match=rf"Site 'a' is taking part.* process {os.getpid()} "),
    ):
        Outbox(folder, "site 'a'")
    with Outbox(folder):
        pass


def test_the_name_is_free_when_its_holder_was_killed(folder):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from truststram_lab.federated.participation import Outbox\n"
        "Outbox(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
    assert ended.returncode == -9
    with Outbox(folder) as outbox:
        assert outbox.waiting() == []


def test_half_written_files_of_a_dead_process_are_cleared(folder):
    with Outbox(folder):
        (folder / ".tmpabc").write_bytes(b"half")
        (folder / "state" / ".tmpdef").write_bytes(b"half")
    with Outbox(folder):
        assert list(folder.rglob(".*")) == []


@given(st.lists(st.text(min_size=1, max_size=300), min_size=2, max_size=2, unique=True))
def test_different_names_have_different_folders_that_stay_inside(names):
    made = [folder_name(name) for name in names]
    assert made[0] != made[1]
    for name in made:
        assert "/" not in name
        assert name not in ("", ".", "..")
        assert len(name.encode()) <= 255


def test_the_outbox_lies_in_the_home_and_apart_for_each_platform(tmp_path):
    one = outbox_folder("sandbox", "icu", "a", tmp_path)
    assert one == tmp_path / "outbox" / "sandbox" / "icu" / "a"
    assert outbox_folder("example.org:443", "../x", ".", tmp_path).is_relative_to(
        tmp_path / "outbox" / "example.org%3A443"
    )
