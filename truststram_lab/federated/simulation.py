"""The work of a simulated run: five sites in one kernel, each with its own connection."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from truststram_lab.exceptions import TrustStramException
from truststram_lab.learning import weights
from truststram_lab.learning.device import best_device
from truststram_lab.learning.training import Stopped
from truststram_lab.learning.weights import State
from truststram_lab.schemas.federation import Assignment, CreateRun, Run

from .board import Board
from .comparison import Comparison
from .departures import Departures
from .participant import Participant
from .participation.outbox import Outbox, outbox_folder
from .preparation import HOST, Prepared
from .run_spending import RunSpending, load_bounds
from .site_work import TableWork, model_and_control, remembers
from .stopping import stop_on_event

if TYPE_CHECKING:
    from truststram_lab.client import TrustStramClient

    from .hosted.work import HostWork

__all__ = ["Simulation"]

#: Seconds of a long poll when no site has anything to do; short enough to stop within two.
_WAIT_S = 1.0


class Simulation:
    """Drives the sites one after another through the platform's rounds.

    Args:
        on_run: called with the platform's view whenever it was read.
        stop: set from anywhere; looked at before each optimizer step, push and request.
    """

    def __init__(
        self,
        client: TrustStramClient,
        run: Run,
        prepared: Prepared,
        comparison: Comparison,
        board: Board,
        *,
        stop: threading.Event,
        on_run: Callable[[Run], None],
    ) -> None:
        self._client = client
        self._run = run
        self._whole = prepared
        self._prepared = prepared.as_host() if run.plan.hosted is not None else prepared
        self._comparison = comparison
        self._board = board
        self._stop = stop
        self._on_run = on_run
        self._departures = Departures(run.id)
        self._spending = RunSpending(run)
        #: Reads what the host kept; None until it took part.
        self._kept: Callable[[str], bytes | None] | None = None

    def work(self) -> None:
        """Train until the platform has registered the model, then compare.

        Raises:
            Stopped: the stop was asked for, here or elsewhere.
            TrustStramException: the run failed; the sentence says why.
        """
        with ExitStack() as open_things:
            stop_on_event(self._client, self._run, self._stop, open_things)
            if self._run.status != "completed":
                participants = self._connect(open_things)
                self._load_torch()
                for participant in participants:
                    participant.send_waiting()
                self._train(participants)
                self._kept = participants[0].kept
            hosted = self._run.plan.hosted
            compares_own = hosted is not None and hosted.personal is not None
            if not compares_own:
                self._forget()
            self._board.all_sites("done")
            self._score_final()
            self._compare(open_things)
        if compares_own:
            self._forget()

    def _work_of(self, index: int) -> TableWork | HostWork:
        plan = self._run.plan
        if plan.hosted is not None:
            from .hosted.work import HostWork

            return HostWork(
                self._whole,
                plan,
                folder=self._clients_folder(),
                bounds=None if plan.privacy is None else load_bounds(self._run.id),
                progress=self._say_clients,
                should_stop=self._stop.is_set,
            )
        return TableWork(
            self._prepared.sites[index],
            index,
            self._prepared,
            plan,
            bounds=None if plan.privacy is None else load_bounds(self._run.id),
            should_stop=self._stop.is_set,
        )

    def _clients_folder(self) -> Path:
        return outbox_folder("simulations", self._run.id, HOST) / "clients"

    def _say_clients(self, text: str) -> None:
        self._board.progress = f"{(self._board.progress or '').partition(',')[0]}, {text}"

    def _connect(self, open_things: ExitStack) -> list[Participant]:
        plan = self._run.plan
        invitations = self._client.federations.invite(plan.federation, plan.sites, keep=True)
        tokens = {invitation.participant: invitation.token for invitation in invitations}
        participants = []
        for index, site in enumerate(self._prepared.sites):
            work = self._work_of(index)
            participant = Participant(
                site.name,
                index,
                work,
                self._client.participant(tokens[site.name]),
                plan=plan,
                signature=self._prepared.signature,
                outbox=self._outbox(site.name) if _remembers(plan) else None,
                departures=self._departures,
                should_stop=self._stop.is_set,
            )
            open_things.callback(participant.close)
            participant.register(f"{plan.federation}/{site.name}")
            participants.append(participant)
        return participants

    def _outbox(self, site: str) -> Outbox:
        # By run: another kernel of the owner may simulate the same sites in another one.
        folder = outbox_folder("simulations", self._run.id, site)
        return Outbox(folder, f"site {site} of run {self._run.name}")

    def _forget(self) -> None:
        """Nothing is sent any more, so what the sites kept for it goes."""
        folder = outbox_folder("simulations", self._run.id, "any").parent
        if folder.exists():
            shutil.rmtree(folder)

    def _load_torch(self) -> None:
        # Seconds, on this thread: an interrupt of the cell cannot break an import half done.
        self._board.progress = "loading torch"
        self._board.device(best_device())

    def _train(self, participants: list[Participant]) -> None:
        while True:
            run = self._read_run()
            if run.status == "completed":
                return
            if run.status == "failed":
                raise TrustStramException(f"Run {run.name} failed: {run.reason}")
            if run.status == "stopped" or self._stop.is_set():
                raise Stopped
            self._board.round_opened(run.pushed)
            # A list, not a generator: every site gets its turn.
            worked = [self._turn(participant, run) for participant in participants]
            if any(worked):
                self._post_report()
            else:
                # The platform is still averaging, or another kernel is at work: it answers
                # as soon as there is something to do.
                participants[0].client.assignments(wait_s=_WAIT_S)

    def _turn(self, participant: Participant, run: Run) -> bool:
        """One site looks for its assignment and does it; True if there was one."""
        if self._stop.is_set():
            raise Stopped
        mine = [a for a in participant.client.assignments(wait_s=0) if a.run_id == run.id]
        for assignment in mine:
            self._score_former_round(assignment)
            self._say(participant, assignment)
            self._note(participant, "training")
            if not participant.has_made(assignment):
                self._spending.reserve(assignment.number)
                self._board.privacy(self._spending.report(assignment.number))
            participant.perform(assignment)
            self._spending.release(assignment.number)
            self._note(participant, "pushed")
            run = run.model_copy(update={"pushed": self._board.pushed()})
            self._on_run(run)
        return bool(mine)

    def _score_former_round(self, assignment: Assignment) -> None:
        number = assignment.number - 1
        done = {entry.number for entry in self._board.report().history}
        if number < 1 or number in done or assignment.model_sha256 is None:
            return
        assert assignment.statistics is not None
        state, _ = model_and_control(self._client.blobs.get(assignment.model_sha256))
        self._board.round_scored(number, self._comparison.evaluate(state, assignment.statistics))

    def _score_final(self) -> None:
        run = self._read_run()
        assert run.model_version is not None
        version = self._client.models.version(run.plan.model, run.model_version)
        assert version.statistics is not None
        state, _ = weights.decode(self._client.blobs.get(version.weights_sha256))
        self._board.round_scored(
            run.plan.rounds, self._comparison.evaluate(state, version.statistics)
        )
        self._post_report()

    def _compare(self, open_things: ExitStack) -> None:
        report = self._board.report()
        if self._run.plan.hosted is not None and report.clients is None:
            self._board.progress = "comparing: each client alone"
            self._compare_clients(open_things)
        missing = {site.name for site in report.sites if site.alone is None}
        if missing and self._run.plan.hosted is None:
            self._board.progress = "comparing: each site alone"
            for name, score in self._comparison.alone():
                self._board.alone(name, score)
        if report.pooled is None:
            self._board.progress = "comparing: all rows pooled"
            self._board.pooled(self._comparison.pooled())
        self._board.stop_clock()
        self._post_report()

    def _compare_clients(self, open_things: ExitStack) -> None:
        from .hosted.compare import clients_report

        run = self._read_run()
        version = self._client.models.version(run.plan.model, run.model_version or 1)
        assert version.statistics is not None
        state, _ = weights.decode(self._client.blobs.get(version.weights_sha256))
        found, table = clients_report(
            self._whole,
            run.plan,
            state,
            version.statistics,
            self._stop.is_set,
            self._own_model(state, open_things),
        )
        body = weights.encode(table)
        self._departures.weights(body, table)
        self._client.blobs.put(body)
        self._board.clients(found.model_copy(update={"table_sha256": weights.sha256_hex(body)}))

    def _own_model(self, state: State, open_things: ExitStack) -> Callable[[int], State] | None:
        """A virtual client's own model beside the final one; None where they have none."""
        hosted = self._run.plan.hosted
        if hosted is None or hosted.personal is None:
            return None
        if self._kept is None:
            # The rounds were another kernel's, or an earlier go of this one.
            outbox = self._outbox(HOST)
            open_things.callback(outbox.close)
            self._kept = outbox.state
        from .hosted.work import HostWork

        work = self._work_of(0)
        assert isinstance(work, HostWork), "the run is hosted"
        memory = work.memory(self._run.id, state, self._kept)
        open_things.callback(memory.close)
        return lambda client: memory.personal(client, state)

    def _say(self, participant: Participant, assignment: Assignment) -> None:
        place = f"{participant.name}, {participant.index + 1} of {len(self._prepared.sites)}"
        self._board.progress = (
            f"means and variances: {place}"
            if assignment.kind == "statistics"
            else f"round {assignment.number} of {assignment.rounds}: {place}"
        )

    def _note(self, participant: Participant, status: str) -> None:
        traffic = participant.client.traffic
        self._board.site(
            participant.name,
            status,
            sent=traffic.sent_bytes,
            received=traffic.received_bytes,
        )

    def _read_run(self) -> Run:
        run = self._client.runs.get(self._run.name)
        self._on_run(run)
        return run

    def _post_report(self) -> None:
        report = self._board.report()
        self._departures.fields(None, "report", report)
        self._on_run(self._client.runs.report(self._run.name, report))


def _remembers(plan: CreateRun) -> bool:
    if plan.hosted is None:
        return remembers(plan)
    from .hosted.work import host_remembers

    return host_remembers(plan)
