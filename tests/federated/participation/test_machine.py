"""The laws of a participation, whatever order faults, answers and restarts come in."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted_platform import ScriptedPlatform, assignment

from truststram_lab.exceptions import (
    AuthenticationError,
    InsufficientResourcesError,
    InvalidInputError,
    PlatformError,
    PlatformUnavailableError,
    RateLimitExceededError,
    RequestTimeoutError,
    RoundClosedError,
    TrustStramException,
    UpdateRejectedError,
)
from truststram_lab.federated.participation import machine as steps
from truststram_lab.federated.participation.machine import Machine, Patience
from truststram_lab.federated.participation.outbox import Outbox, Parcel

#: What can go wrong at one step. ``lost`` is an answer that never came: the step was done.
FAULTS = ("unavailable", "lost", "busy", "crash before", "crash after", "echo", "stop", "resume")


class Killed(Exception):
    pass


class Site:
    """Obeys a machine on a real outbox; noise makes every training's bytes different."""

    def __init__(self, platform: ScriptedPlatform, folder: Path) -> None:
        self.platform = platform
        self.folder = folder
        self.trained: list[str] = []
        self.states: list[tuple[str, str]] = []
        self.pauses: list[float] = []
        self.faults: list[str] = []

    def live(self) -> None:
        """From a start of the process to its end, or to a crash."""
        with Outbox(self.folder) as outbox:
            course = Machine(Patience(), jitter=lambda: 0.5).run()
            result, fault = None, None
            try:
                while True:
                    step = course.send(result) if fault is None else course.throw(fault)
                    result, fault = None, None
                    try:
                        result = self.obey(step, outbox)
                    except TrustStramException as error:
                        fault = error
            except StopIteration:
                return
            finally:
                course.close()

    def obey(self, step, outbox):
        kind = self.faults.pop(0) if self.faults else ""
        reaches_out = isinstance(step, steps.Poll | steps.Fetch | steps.Push)
        if kind == "crash before":
            raise Killed
        if kind == "stop":
            self.platform.stopped = True
        if kind == "resume":
            self.platform.stopped = False
        if kind == "unavailable" and reaches_out:
            raise PlatformUnavailableError("Nobody answers.")
        if kind == "busy" and reaches_out:
            raise RateLimitExceededError("Too many.", retry_after=2.0)
        result = self.act(step, outbox)
        if kind == "crash after":
            raise Killed
        if kind == "lost" and reaches_out:
            raise RequestTimeoutError("No answer in time.")
        if kind == "echo" and isinstance(step, steps.Poll):
            # An answer of before, and the same one twice.
            return [assignment(max(1, self.platform.current - 1)), *result, *result]
        return result

    def act(self, step, outbox):
        match step:
            case steps.Stored():
                return outbox.waiting()
            case steps.Load(round_id):
                return steps.SENT if outbox.is_sent(round_id) else outbox.get(round_id)
            case steps.Poll(wait_s):
                if not self.faults:
                    self.platform.stopped = False
                return self.platform.assignments(wait_s)
            case steps.Admit():
                return []
            case steps.Fetch(found):
                return self.platform.model(found.round_id)
            case steps.Train(found, model):
                assert model == found.round_id.encode()
                self.trained.append(found.round_id)
                count = int(outbox.state("count") or b"0") + 1
                return Parcel(
                    found.round_id, found.run_id, found.run, found.kind, found.number,
                    os.urandom(40), {"count": str(count).encode()},
                )  # fmt: skip
            case steps.Keep(parcel):
                return outbox.put(parcel)
            case steps.Push(parcel):
                assert outbox.get(parcel.round_id) == parcel, "sent before it was stored"
                return self.platform.push(parcel.round_id, parcel.body)
            case steps.Settle(parcel):
                return outbox.settle(parcel)
            case steps.Drop(parcel):
                return outbox.drop(parcel.round_id)
            case steps.Pause(seconds):
                self.pauses.append(seconds)
                return None
            case steps.Tell(round_id, state, _):
                self.states.append((round_id, state))
                return None
            case steps.Over():
                return self.platform.over
        raise AssertionError(step)


def live_on(site: Site) -> None:
    """Start the process again after every crash, until it ends by itself."""
    while True:
        try:
            return site.live()
        except Killed:
            continue


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(st.just(""), st.sampled_from(FAULTS)), max_size=80))
def test_each_round_sends_one_sequence_of_bytes_and_arrives_in_the_end(script):
    with tempfile.TemporaryDirectory() as folder:
        platform = ScriptedPlatform(rounds=3)
        site = Site(platform, Path(folder) / "site")
        site.faults = list(script)
        live_on(site)
        assert platform.over
        assert sorted(platform.accepted) == [assignment(n).round_id for n in (1, 2, 3)]
        for round_id, digests in platform.arrived.items():
            assert digests == {platform.accepted[round_id]}
        with Outbox(site.folder) as outbox:
            assert all(outbox.is_sent(round_id) for round_id in platform.accepted)
            # A round that was trained twice was never stored the first time: it counts once.
            assert outbox.state("count") == b"3"
            assert outbox.waiting() == []


def test_the_states_of_a_round_come_in_the_documented_order(tmp_path):
    site = Site(ScriptedPlatform(rounds=1), tmp_path / "site")
    site.live()
    assert [state for _, state in site.states] == [
        "offered",
        "accepted",
        "plan_fetching",
        "plan_ready",
        "uploading",
        "uploaded",
        "acknowledged",
        "completed",
    ]


def drive(course, answers):
    """Send each answer (or throw it, if it is an error); returns the steps that came."""
    seen = [course.send(None)]
    for answer in answers:
        if isinstance(answer, Exception):
            seen.append(course.throw(answer))
        else:
            seen.append(course.send(answer))
    return seen


def machine(**patience) -> Machine:
    return Machine(Patience(**patience), jitter=lambda: 1.0)


def test_pauses_double_up_to_the_cap_and_respect_what_the_platform_asks():
    course = machine(base_s=1.0, cap_s=4.0).run()
    answers = [[]]
    for fault in (
        PlatformUnavailableError("gone"),
        PlatformError("500"),
        RequestTimeoutError("late"),
        PlatformUnavailableError("gone"),
        RateLimitExceededError("busy", retry_after=60.0),
    ):
        answers += [fault, False, None]
    seen = drive(course, answers)
    assert [s.seconds for s in seen if isinstance(s, steps.Pause)] == [1.0, 2.0, 4.0, 4.0, 60.0]


def test_a_platform_that_is_silent_for_too_long_is_an_error():
    course = machine(base_s=1.0, cap_s=1.0, outage_s=2.0).run()
    drive(course, [[]])
    for _ in range(2):
        assert isinstance(course.throw(PlatformUnavailableError("gone")), steps.Over)
        assert isinstance(course.send(False), steps.Pause)
        assert isinstance(course.send(None), steps.Poll)
    assert isinstance(course.throw(PlatformUnavailableError("gone")), steps.Over)
    with pytest.raises(PlatformUnavailableError, match="gone"):
        course.send(False)


def test_silence_is_no_error_when_nothing_more_will_come():
    course = machine().run()
    drive(course, [[]])
    assert isinstance(course.throw(PlatformUnavailableError("gone")), steps.Over)
    with pytest.raises(StopIteration):
        course.send(True)


def test_a_refused_credential_ends_it_at_once():
    course = machine().run()
    drive(course, [[]])
    with pytest.raises(AuthenticationError):
        course.throw(AuthenticationError("revoked"))


def to_training(course):
    first = assignment(1)
    seen = drive(course, [None, None, [], None, None, b"model", None])
    assert isinstance(seen[-1], steps.Train)
    return first


@pytest.mark.parametrize(
    "error", [InvalidInputError("NaN at w"), InsufficientResourcesError("no memory")]
)
def test_a_failure_of_the_sites_own_work_is_not_repeated_and_nothing_is_stored(error):
    course = machine().round(assignment(1))
    to_training(course)
    told = course.throw(error)
    assert told == steps.Tell("run_1_rnd_1", "rejected_local", error.message)
    with pytest.raises(type(error)):
        course.send(None)


def test_what_a_training_function_raised_is_not_told_to_the_platform():
    course = machine().round(assignment(1))
    to_training(course)
    told = course.throw(KeyError("Mrs Smith"))
    assert told.state == "rejected_local"
    assert "Smith" not in told.detail
    with pytest.raises(KeyError):
        course.send(None)


def test_a_declined_round_is_said_once_and_then_left_alone():
    played = machine()
    course = played.round(assignment(1))
    seen = drive(course, [None, None, ["No noise.", "Model 'x' is not allowed."]])
    assert seen[-1] == steps.Tell(
        "run_1_rnd_1", "declined_policy", "No noise. Model 'x' is not allowed."
    )
    with pytest.raises(StopIteration) as done:
        course.send(None)
    assert done.value.value is None
    again = played.round(assignment(1))
    assert isinstance(again.send(None), steps.Load)
    with pytest.raises(StopIteration):
        again.send(None)


def test_offers_that_are_not_for_this_site_do_not_keep_it_busy():
    course = machine(base_s=1.0, cap_s=8.0).run()
    drive(course, [[]])
    seen = []
    for _ in range(4):
        seen += [course.send([assignment(1)]), course.send(steps.SENT), course.send(False)]
        course.send(None)
    assert [s.seconds for s in seen if isinstance(s, steps.Pause)] == [1.0, 2.0, 4.0, 8.0]


def parcel(number=1, body=b"update"):
    return Parcel(f"run_1_rnd_{number}", "run_1", "icu-1", "training", number, body)


def test_an_update_that_was_damaged_on_the_way_is_sent_again():
    course = machine().round(assignment(1))
    assert isinstance(drive(course, [parcel(), None])[-1], steps.Push)
    damaged = UpdateRejectedError("The body's SHA-256 is other.", field="Content-Digest")
    assert isinstance(course.throw(damaged), steps.Over)
    assert course.send(False).state == "upload_deferred"
    assert isinstance(course.send(None), steps.Pause)
    assert course.send(None) == steps.Push(parcel())


def test_a_refused_update_is_given_up_and_the_reason_is_raised():
    course = machine().round(assignment(1))
    drive(course, [parcel(), None])
    assert course.throw(UpdateRejectedError("Array 'w' is missing.")) == steps.Drop(parcel())
    assert course.send(None).state == "aborted_policy"
    with pytest.raises(UpdateRejectedError, match="missing"):
        course.send(None)


def test_a_stopped_run_keeps_the_update_and_gets_it_when_it_goes_on():
    played = machine()
    course = played.round(assignment(1))
    drive(course, [parcel(), None])
    assert course.throw(RoundClosedError("stopped")).state == "expired_round"
    with pytest.raises(StopIteration):
        course.send(None)
    again = played.round(assignment(1))
    assert drive(again, [parcel(), None])[-1] == steps.Push(parcel())
