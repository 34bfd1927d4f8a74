"""The owner's side of a real run: opened over the sites that are there, seen, and stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from truststram_lab.exceptions import ConflictError, InvalidInputError, RunStoppedError
from truststram_lab.learning import weights
from truststram_lab.learning.training import initial_state
from truststram_lab.preprocessing import encoded_width
from truststram_lab.schemas.federation import CreateRun, LocalTraining, Run
from truststram_lab.schemas.participation import ConfigValue, Preflight, Quorum
from truststram_lab.schemas.privacy import PrivacyPlan
from truststram_lab.schemas.strategies import AnyStrategy, as_strategy
from truststram_lab.schemas.tables import Signature

from .handle import RunHandle
from .preparation import MIN_SITE_ROWS, default_architecture

if TYPE_CHECKING:
    from truststram_lab.client import TrustStramClient

__all__ = ["OpenRun", "agreed_signature", "described_sites", "plan_of"]

_ACTIVE = ("statistics", "training")
#: A stop is one call to the platform.
_STOP_WAIT_S = 1.8
#: Events tell when to look again; without any, a look every so many seconds.
_LOOK_S = 5.0


def described_sites(federation: str, preflight: Preflight, least: int | None) -> list[str]:
    """The sites that have described their tables, in the order of invitation.

    Args:
        least: as many must be there; None is one.

    Raises:
        ConflictError: too few, or their tables do not fit together; the sentence says which.
    """
    described = [site for site in preflight.sites if site.status != "invited"]
    silent = [site.name for site in preflight.sites if site.status == "invited"]
    if not preflight.sites:
        raise ConflictError(
            f"Nobody is invited to {federation!r}; invite with %ts_federations {federation} "
            "invite SITE."
        )
    problems = [sentence for site in described for sentence in site.problems]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConflictError(
            f"The sites' tables do not fit together: {problems[0]}{more} See all with "
            f"%ts_federations {federation}."
        )
    wanted = 1 if least is None else least
    if len(described) < wanted:
        missing = f"; {', '.join(silent[:5])} did not yet" if silent else ""
        raise ConflictError(
            f"{len(described)} of the {wanted} sites that the run needs have joined {federation!r}"
            f"{missing}; a site joins with %ts_join {federation} --data df --target COLUMN."
        )
    return [site.name for site in described]


def agreed_signature(preflight: Preflight, positive: str | None) -> Signature:
    """What the tables agree on, with the class that is looked for last.

    Raises:
        InvalidInputError: ``positive`` is none of two classes.
    """
    signature = preflight.signature
    assert signature is not None  # sites have described themselves, and nothing is wrong
    classes = signature.classes
    if positive is None:
        return signature
    if len(classes) != 2 or positive not in classes:
        raise InvalidInputError(
            f"{positive!r} cannot be the positive class of {signature.target!r}, whose classes are "
            f"{', '.join(classes[:10])}; "
            + ("choose one of the two." if len(classes) == 2 else "leave it out."),
            field="positive",
            choices=classes[:10] if len(classes) == 2 else None,
        )
    ordered = sorted(classes, key=lambda label: label == positive)
    return signature.model_copy(update={"classes": ordered, "positive_class": positive})


def plan_of(
    federation: str,
    sites: Sequence[str],
    signature: Signature,
    *,
    model: str,
    rounds: int,
    local: LocalTraining,
    strategy: str | Mapping[str, Any] | AnyStrategy = "fedavg",
    filters: Sequence[Any] = (),
    privacy: PrivacyPlan | None = None,
    config: Mapping[str, ConfigValue] | None = None,
    quorum: int | None = None,
    deadline_s: float | None = None,
    seed: int = 0,
) -> CreateRun:
    """The plan of a real run; its initial weights are not named yet.

    Args:
        quorum: sites that must be there, and answers that suffice at the deadline; None is all.
        deadline_s: seconds of a round; None waits for everybody.
    """
    least = len(sites) if quorum is None else quorum
    if not 1 <= least <= len(sites):
        raise InvalidInputError(
            f"quorum is {least}, and {len(sites)} sites have joined {federation!r}; it goes from 1 "
            f"to {len(sites)}.",
            field="quorum",
        )
    return CreateRun(
        model=model,
        federation=federation,
        sites=list(sites),
        rounds=rounds,
        strategy=as_strategy(strategy),
        local=local,
        seed=seed,
        architecture=default_architecture(encoded_width(signature), signature),
        signature=signature,
        min_site_rows=MIN_SITE_ROWS,
        simulated=False,
        filters=list(filters),
        privacy=privacy,
        config=dict(config or {}),
        quorum=Quorum(
            min_available=least,
            min_fit=least,
            min_updates=least if deadline_s is not None else None,
            deadline_s=deadline_s,
        ),
        evaluation="every",
    )


class OpenRun(RunHandle):
    """A run whose sites are elsewhere; this kernel opened it and looks on."""

    def __init__(self, client: TrustStramClient, run: Run) -> None:
        super().__init__(client, run)
        self._ended = threading.Event()
        self._news = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @classmethod
    def create(cls, client: TrustStramClient, plan: CreateRun) -> OpenRun:
        """Send the initial weights and open the run; its sites begin."""
        assert plan.architecture is not None
        state = initial_state(plan.architecture, plan.seed, plan.local.dtype)
        sha256 = client.blobs.put(weights.encode(state))
        return cls(
            client, client.runs.create(plan.model_copy(update={"initial_weights_sha256": sha256}))
        )

    @property
    def active(self) -> bool:
        """Whether this kernel looks on, and the run is not over."""
        return self._thread is not None and not self._ended.is_set()

    def start(self) -> OpenRun:
        """Look on, on a thread of this kernel; returns at once."""
        if not self.active:
            self._ended.clear()
            self._error = None
            self._thread = threading.Thread(target=self._look, name=f"run {self.name}", daemon=True)
            self._thread.start()
        return self

    def wait(
        self, tick: Callable[[], None] | None = None, timeout_s: float | None = None
    ) -> OpenRun:
        """Wait for the end; ``tick`` is called about ten times a second meanwhile.

        Raises:
            RunStoppedError: it was stopped, by somebody or for a reason.
            ConflictError: it failed; the sentence says why.
            TimeoutError: ``timeout_s`` seconds are over; the run goes on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._ended.wait(0.1):
            if tick is not None:
                tick()
            if deadline is not None and time.monotonic() > deadline and self.active:
                raise TimeoutError(f"Run {self.name} is still going after {timeout_s:g} s.")
        if self._error is not None:
            raise self._error
        if self._run.status == "stopped":
            raise self.stopped_error()
        if self._run.status == "failed":
            raise ConflictError(
                f"Run {self.name} failed: {self._run.reason or 'no reason was given.'}"
            )
        return self

    def request_stop(self) -> None:
        """Ask the platform to stop the run for all its sites; returns at once."""
        threading.Thread(target=self._stop_it, name=f"stop {self.name}", daemon=True).start()

    def stop(self) -> OpenRun:
        """Stop the run for all its sites; it can be resumed."""
        self._stop_it()
        self._ended.wait(_STOP_WAIT_S)
        return self

    def stopped_error(self) -> RunStoppedError:
        """The sentence for a run that was stopped, with the way to go on."""
        run = self._run
        why = f" ({run.reason})" if run.reason else ""
        return RunStoppedError(
            f"Run {run.name} was stopped in round {min(run.round + 1, run.plan.rounds)} of "
            f"{run.plan.rounds}{why}; go on with %ts_federations {run.plan.federation} open "
            "--resume.",
            run=run.name,
        )

    def _stop_it(self) -> None:
        run = self._client.runs.get(self.name)
        if run.status in _ACTIVE:
            run = self._client.runs.stop(self.name)
        self._run = run
        self._news.set()

    def _look(self) -> None:
        stream = self._client.events.stream(f"run:{self._run.id}", after=self._run.last_event)

        def listen() -> None:
            for _ in stream:
                self._news.set()

        listener = threading.Thread(target=listen, name=f"events {self.name}", daemon=True)
        listener.start()
        try:
            while True:
                self._news.clear()
                self._run = self._client.runs.get(self.name)
                if self._run.status not in _ACTIVE:
                    return
                self._news.wait(_LOOK_S)
        except BaseException as error:  # noqa: BLE001 - kept, and raised by wait()
            self._error = error
        finally:
            stream.close()
            listener.join(2.0)
            self._ended.set()
