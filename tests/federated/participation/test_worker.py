"""Participants on threads, through whole runs of a real platform."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
from scripted_platform import ScriptedPlatform, assignment
from tiny_runs import NoisySite, open_run, start_state

from truststram_lab import sandbox
from truststram_lab.client import ParticipantClient, TrustStramClient
from truststram_lab.exceptions import (
    AuthenticationError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    PlatformUnavailableError,
    RequestTimeoutError,
)
from truststram_lab.federated.participation import Made, Outbox, Patience, Worker
from truststram_lab.learning import weights
from truststram_lab.learning.training import Stopped
from truststram_lab.schemas.federation import RoundPlan


@pytest.fixture(scope="module")
def client(shared_home):
    with TrustStramClient(environment="sandbox") as opened:
        yield opened


def over(client, run):
    def asked(fault):
        return fault is None and client.runs.get(run.id).status in ("completed", "failed")

    return asked


def worker(client, run, token, folder, work=None, **more):
    return Worker(
        client.participant(token),
        Outbox(folder),
        work or NoisySite(),
        patience=Patience(poll_s=2.0, base_s=0.05, cap_s=0.2),
        is_over=over(client, run),
        **more,
    )


def sum_of_bodies(folders):
    """What the model must be: the mean of the sites' updates, round by round."""
    state = start_state()
    for number in range(1, 100):
        bodies = [f / f"{number}.body" for f in folders]
        if not bodies[0].exists():
            return state
        updates = [weights.decode(body.read_bytes())[0] for body in bodies]
        mean = {
            name: np.mean([u[name].astype(np.float64) for u in updates], axis=0) for name in state
        }
        state = {name: (state[name] + mean[name]).astype(np.float32) for name in state}
    return state


class Recording(NoisySite):
    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True)

    def perform(self, terms, model, tell, own):
        made = super().perform(terms, model, tell, own)
        (self.folder / f"{terms.number}.body").write_bytes(made.body)
        return made


def test_two_participants_bring_a_run_to_its_end(client, tmp_path):
    run, tokens = open_run(client, "two", ["a", "b"], 3)
    seen = []
    workers = [
        worker(
            client, run, tokens[name], tmp_path / name, Recording(tmp_path / f"r{name}"),
            name=name, on_state=seen.append,
        )
        for name in "ab"
    ]  # fmt: skip
    for one in workers:
        one.start()
    for one in workers:
        one.wait(60)
    done = client.runs.get(run.name)
    assert done.status == "completed"
    final, _ = weights.decode(client.models.download("two", done.model_version))
    for name, array in sum_of_bodies([tmp_path / "ra", tmp_path / "rb"]).items():
        assert final[name] == pytest.approx(array, rel=1e-6)
    states = [e.state for e in workers[0].events if e.number == 1]
    assert states == [
        "offered",
        "accepted",
        "plan_fetching",
        "plan_ready",
        "local_training",
        "uploading",
        "uploaded",
        "acknowledged",
        "completed",
    ]
    assert {event.run for event in seen} == {run.name}


def test_the_platform_may_be_killed_in_the_middle(client, tmp_path):
    run, tokens = open_run(client, "killed-platform", ["a"], 6)
    site = Recording(tmp_path / "r")
    trained = threading.Event()

    def noticed(event):
        if event.number == 2 and event.state == "uploading" and not trained.is_set():
            trained.set()
            os.kill(sandbox.status().pid, signal.SIGKILL)

    one = worker(client, run, tokens["a"], tmp_path / "a", site, on_state=noticed)
    one.start()
    one.wait(120)
    assert trained.is_set()
    done = client.runs.get(run.name)
    assert (done.status, done.round) == ("completed", 6)
    final, _ = weights.decode(client.models.download("killed-platform", done.model_version))
    for name, array in sum_of_bodies([tmp_path / "r"]).items():
        assert final[name] == pytest.approx(array, rel=1e-6)


def test_a_stopped_run_gets_the_same_bytes_when_it_goes_on(client, tmp_path):
    run, tokens = open_run(client, "halted", ["a"], 2)
    site = Recording(tmp_path / "r")
    refused = threading.Event()

    def noticed(event):
        if event.number == 1 and event.state == "uploading" and not refused.is_set():
            client.runs.stop(run.id)
        if event.state == "expired_round":
            refused.set()

    one = worker(client, run, tokens["a"], tmp_path / "a", site, on_state=noticed)
    one.start()
    assert refused.wait(60)
    body = (tmp_path / "r" / "1.body").read_bytes()
    client.runs.resume(run.id)
    one.wait(60)
    assert (tmp_path / "r" / "1.body").read_bytes() == body, "it trained a second time"
    assert client.runs.get(run.id).status == "completed"


def test_a_stop_ends_a_long_poll_and_frees_the_name(client, tmp_path):
    run, tokens = open_run(client, "waiting", ["a", "b"], 2)
    one = worker(client, run, tokens["a"], tmp_path / "a")
    one.start()
    while not any(event.state == "completed" for event in one.events):
        assert one.active
    one.stop()
    one.wait(10)
    assert not one.active
    with Outbox(tmp_path / "a"):
        pass


def test_a_stop_in_the_middle_of_training_sends_nothing(client, tmp_path):
    run, tokens = open_run(client, "stopped-training", ["a"], 2)
    begun = threading.Event()

    class Slow(NoisySite):
        def perform(self, terms, model, tell, own):
            made = super().perform(terms, model, tell, own)
            if terms.kind == "training":
                begun.set()
                one._stop.wait(30)
            return made

    one = worker(client, run, tokens["a"], tmp_path / "a", Slow())
    one.start()
    assert begun.wait(30)
    one.stop()
    one.wait(10)
    assert client.runs.get(run.id).pushed == []
    with Outbox(tmp_path / "a") as outbox:
        assert outbox.waiting() == []


def test_two_of_one_name_are_told_apart(client, tmp_path):
    run, tokens = open_run(client, "same", ["a"], 1)
    one = worker(client, run, tokens["a"], tmp_path / "a")
    with pytest.raises(ConflictError, match=f"process {os.getpid()}"):
        worker(client, run, tokens["a"], tmp_path / "a")
    one.close()


def test_an_error_of_the_sites_work_ends_it_and_nothing_is_sent(client, tmp_path):
    run, tokens = open_run(client, "broken", ["a"], 1)

    class Broken(NoisySite):
        def perform(self, terms, model, tell, own):
            raise ZeroDivisionError("rows of Mrs Smith")

    one = worker(client, run, tokens["a"], tmp_path / "a", Broken())
    one.start()
    with pytest.raises(ZeroDivisionError):
        one.wait(60)
    assert one.events[-1].state == "rejected_local"
    assert "Smith" not in str(one.events)
    assert client.runs.get(run.id).pushed == []


def test_a_wrong_credential_ends_it(client, tmp_path):
    open_run(client, "stranger", ["a"], 1)
    one = Worker(ParticipantClient(client.target, "tss_wrong"), Outbox(tmp_path / "a"), NoisySite())
    one.start()
    with pytest.raises((AuthenticationError, PermissionDeniedError)):
        one.wait(60)


def test_waiting_has_a_limit_that_stops_nothing(client, tmp_path):
    run, tokens = open_run(client, "patient", ["a", "b"], 1)
    one = worker(client, run, tokens["a"], tmp_path / "a", name="a")
    one.start()
    with pytest.raises(RequestTimeoutError, match="Site a is still taking part"):
        one.wait(0.05)
    assert one.active
    one.stop()
    one.wait(10)


class Faulty(ScriptedPlatform):
    """The news of a state is refused or lost; the rounds go on."""

    def __init__(self, error):
        super().__init__(rounds=2)
        self.error = error
        self.tries = 0

    def state(self, round_id, update):
        self.tries += 1
        raise self.error


class Plain:
    def objections(self, terms):
        return []

    def perform(self, terms, model, tell, own):
        tell("local_training")
        return Made(b"update")


def scripted(platform, folder, work=None):
    return Worker(platform, Outbox(folder), work or Plain(), is_over=lambda fault: platform.over)


def test_a_platform_that_takes_no_states_is_not_asked_again(tmp_path):
    platform = Faulty(NotFoundError("no such route"))
    one = scripted(platform, tmp_path / "a")
    one.run()
    assert platform.over
    assert platform.tries == 1


def test_news_that_does_not_arrive_is_remembered_and_holds_nothing_up(tmp_path):
    platform = Faulty(PlatformUnavailableError("gone"))
    one = scripted(platform, tmp_path / "a")
    one.run()
    assert platform.over
    assert isinstance(one.untold, PlatformUnavailableError)


def test_only_a_few_states_are_told_to_the_platform(tmp_path):
    platform = ScriptedPlatform(rounds=5)
    scripted(platform, tmp_path / "a").run()
    assert [state for _, state in platform.told] == ["local_training"]


def test_a_policys_sentence_is_told_and_the_round_is_left_alone(tmp_path):
    platform = ScriptedPlatform(rounds=1)

    class Strict(Plain):
        def objections(self, terms):
            return ["This site gives nothing."]

    one = Worker(
        platform, Outbox(tmp_path / "a"), Strict(), is_over=lambda fault: bool(platform.told)
    )
    one.run()
    assert platform.told == [("run_1_rnd_1", "declined_policy")]
    assert platform.arrived == {}


def test_training_that_was_stopped_by_itself_ends_quietly(tmp_path):
    class Interrupted(Plain):
        def perform(self, terms, model, tell, own):
            raise Stopped

    platform = ScriptedPlatform(rounds=1)
    scripted(platform, tmp_path / "a", Interrupted()).run()
    assert platform.arrived == {}


def test_a_plan_is_read_once_and_only_where_the_assignment_leaves_it_out(tmp_path):
    class Short(ScriptedPlatform):
        def __init__(self):
            super().__init__(rounds=3)
            self.read = []

        def assignments(self, wait_s, known=None):
            return [
                found.model_copy(update={"plan_sha256": "a" * 64})
                for found in super().assignments(wait_s, known)
            ]

        def plan(self, sha256):
            self.read.append(sha256)
            return RoundPlan(strategy="median", config={"flavour": 3})

    class Looking(Plain):
        seen = []  # noqa: RUF012 - one test, one list

        def objections(self, terms):
            self.seen.append((terms.strategy.name, terms.config["flavour"]))
            return []

    platform = Short()
    scripted(platform, tmp_path / "a", Looking()).run()
    assert platform.read == ["a" * 64]
    assert Looking.seen == [("median", 3)] * 3


def test_a_plan_that_came_along_is_known_from_then_on(tmp_path):
    class Repeating(ScriptedPlatform):
        """Tells the plan's parts to whoever does not know it."""

        def assignments(self, wait_s, known=None):
            parts = {"strategy": "median", "config": {"flavour": 3}, "filters": []}
            short = known == "b" * 64
            return [
                assignment(self.current, self.rounds, plan_sha256="b" * 64, **parts)
                if not short
                else found.model_copy(
                    update={"plan_sha256": "b" * 64, "signature": None, "architecture": None}
                )
                for found in super().assignments(wait_s, known)
            ]

    seen = []

    class Looking(Plain):
        def objections(self, terms):
            seen.append((terms.strategy.name, terms.config["flavour"], terms.signature.target))
            return []

    platform = Repeating(rounds=3)
    scripted(platform, tmp_path / "a", Looking()).run()
    assert seen == [("median", 3, "ill")] * 3
    assert set(platform.known[1:]) == {"b" * 64}
