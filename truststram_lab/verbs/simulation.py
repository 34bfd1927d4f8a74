"""``simulate``: a whole federation of any torch module in this kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.federated.options import filters_of, unit_of
from truststram_lab.render import Card, simulated_card
from truststram_lab.schemas.federation import CreateRun, LocalTraining
from truststram_lab.schemas.filters import Filter
from truststram_lab.schemas.personal import AnyPersonal, parse_personal
from truststram_lab.schemas.run_privacy import RunPrivacy
from truststram_lab.schemas.simulation import Hosted, Hostile
from truststram_lab.schemas.strategies import AnyStrategy, as_strategy

from . import session as sessions
from .results import Answer

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from truststram_lab.federated.hosted.module_run import ModuleRun, Plan
    from truststram_lab.federated.hosted.modules import Rows
    from truststram_lab.federated.hosted.registration import Registration
    from truststram_lab.federated.hosted.wish import HostWish
    from truststram_lab.learning.virtual.task import Loss, Optimizer, Task, Trainer

__all__ = ["SimulationResult", "simulate"]


@dataclass(frozen=True, repr=False)
class SimulationResult(Answer):
    """What a simulation found, shown as a card.

    Attributes:
        status: ``completed``, or ``stopped`` by an interrupt or on the platform; all that was
            done is here.
        module: the trained module, in evaluation mode; ``personal_module(i)`` is client i's own.
        history: one line a round: clients that sent something, loss in training, and loss and
            accuracy on all held-out rows.
        clients: one line a client: rows, and accuracy and loss of the model trained alone, of
            the global one and, if asked for, of its own, on its own held-out rows.
        losing: places of the clients that would do better alone, worst first.
        record: ``record["options"]`` repeats the run on the same machine:
            ``simulate(model, clients, **result.record["options"])`` gives the same bits of the
            same model and clients. What no record can hold is named in ``record["left_out"]``.
        privacy: what the rounds spent, with the statement of what that hides; None without ``dp``.
        run: the name of its run on the platform, for ``%ts_runs``; None where it has none.
    """

    status: Literal["completed", "stopped"]
    module: torch.nn.Module
    history: list[dict[str, float | int | None]]
    clients: list[dict[str, float | int | None]]
    losing: list[int]
    record: dict[str, Any]
    run: str | None
    privacy: RunPrivacy | None
    _run: ModuleRun = field(compare=False)
    _task: Task = field(compare=False)

    def personal_module(self, client: int) -> torch.nn.Module:
        """The client's own model; the global one without ``personal``, or if it never trained.

        Raises:
            InvalidInputError: there is no such client.
        """
        if not 0 <= client < len(self.clients):
            raise InvalidInputError(
                f"There is no client {client}; they are 0 to {len(self.clients) - 1}."
            )
        return _module_of(self._task, self._run.personal_state(client))

    def to_frame(self) -> pd.DataFrame:
        """``clients`` as a table."""
        import pandas as pd

        return pd.DataFrame(self.clients).set_index("client")

    def card(self) -> Card:
        return simulated_card(
            status=self.status,
            history=self.history,
            clients=self.clients,
            losing=self.losing,
            record=self.record,
            run=self.run,
            privacy=self.privacy,
        )


def simulate(
    model: torch.nn.Module | Callable[[], torch.nn.Module],
    clients: Sequence[tuple[Any, Any]] | int,
    strategy: str | AnyStrategy = "fedavg",
    rounds: int = 10,
    *,
    data: pd.DataFrame | None = None,
    target: str = "target",
    split: str = "dirichlet:0.5",
    epochs: int = 1,
    batch_size: int = 16,
    loss: Loss | None = None,
    optimizer: str | Mapping[str, Any] | Optimizer = "sgd",
    seed: int = 0,
    fraction: float | None = None,
    drop: float | None = None,
    stragglers: float | None = None,
    hostile: str | Hostile | None = None,
    filters: Sequence[str | Mapping[str, Any] | Filter] | str = (),
    personal: str | AnyPersonal | None = None,
    dp: float | None = None,
    delta: float | None = None,
    clip: float = 1.0,
    dp_unit: str = "record",
    holdout: float = 0.25,
    dtype: Literal["float32", "float64"] = "float32",
    backend: Literal["auto", "vectorized", "loop"] = "auto",
    chunk: int | None = None,
    device: str | None = None,
    progress: Callable[[str], None] | None = None,
    name: str | None = None,
    register: bool | None = None,
) -> SimulationResult:
    """Simulate a federation of any torch module in this kernel, and score it client by client.

    Where somebody is signed in, the platform has a run of it: one host that pushes all clients'
    mean change once a round, with what was measured. An interrupt, or a stop of that run, ends it
    after the last complete round, and what was done is returned.

    Args:
        model: a module, which stays as it is, or a function that makes one; that one starts
            from weights that ``seed`` decides.
        clients: (X, y) of each client, numpy or torch; or a number, and the rows of ``data`` are
            dealt to so many.
        strategy: as ``federate``'s: ``fedavg``, ``fedprox:mu=0.1``, ``scaffold``, ``krum``, ...
        data, target, split: a table, its column to predict, and how its rows are dealt.
        epochs: passes of a client over its rows in a round.
        loss: (outputs, targets) -> a mean, or one number a row; cross entropy by default.
        optimizer: ``sgd``, ``adam``, ``adamw``, ``{"name": "sgd", "lr": 0.1}``, or a function of
            the parameters that makes any torch optimizer. New in every round.
        fraction, drop, stragglers, hostile: as ``federate``'s.
        filters: what is done to each client's update before it leaves. The noise of
            ``gaussian_noise`` is secret, so a run with it cannot be repeated.
        personal: ``ditto:lambda=0.1`` or ``fedper:head=LAYER``.
        dp: the epsilon that all rounds may spend; ``delta``, ``clip`` and ``dp_unit`` as
            ``federate``'s. Its noise is secret, so a run with it cannot be repeated; what it
            spends is in the ledger of these rows. How they were scaled is outside epsilon.
        holdout: share of each client's rows that only score; 0 scores on the rows trained on.
        dtype: of the arithmetic.
        backend, chunk, device: how clients are trained; by default measured and chosen, and
            recorded, because they decide the last bits.
        progress: told in a few words where it is.
        name: of the run's model on the platform; by default the module's class.
        register: whether the platform has a run of it; by default if somebody is signed in.

    Raises:
        NotSignedInError: ``register`` is True, and nobody is signed in.
        PrivacyBudgetError: the rows have a limit, and this would pass it.
        InvalidInputError: before anything trains, or because training diverged.
    """
    from truststram_lab.federated.hosted.module_plan import module_plan, run_name
    from truststram_lab.federated.hosted.module_record import fingerprint, module_record
    from truststram_lab.federated.hosted.module_run import Plan
    from truststram_lab.federated.hosted.modules import as_optimizer, check_fit
    from truststram_lab.federated.hosted.wish import HostWish, check_personal
    from truststram_lab.federated.record_privacy import PrivacyWish, clients_plan
    from truststram_lab.learning.virtual import Task, choose
    from truststram_lab.learning.virtual.task import default_loss

    _check_counts(rounds=rounds, epochs=epochs, batch_size=batch_size)
    rows = _rows(clients, data, target, split, holdout, seed)
    wanted_filters = filters_of(filters)
    wish = HostWish(fraction, drop, stragglers, hostile, personal)
    hosted = _hosted(len(rows.train), strategy, wish)
    privacy = None
    if dp is not None:
        asked_for = PrivacyWish(dp, delta, clip)
        local = LocalTraining(epochs=epochs, batch_size=batch_size)
        sizes = [len(client) for client in rows.train]
        privacy = clients_plan(asked_for, unit_of(dp_unit), sizes, rounds, local, wish.share)
    task = Task(
        _seeded(model, seed), loss or default_loss, as_optimizer(optimizer), batch_size, dtype
    )
    check_fit(task, rows.train, hosted)
    check_personal(hosted.personal, hosted.strategy, privacy, task.initial_state())
    trainer = choose(task, rows.attacked_by(hosted, seed), backend, chunk, device)
    hosted = hosted.model_copy(
        update={"backend": trainer.backend, "chunk": trainer.chunk, "why": trainer.why}
    )
    plan = Plan(hosted, rounds, epochs, seed, wanted_filters, privacy)
    run = _run(plan, rows, task, trainer, progress or _silent)
    start = fingerprint(run.state)
    told = module_plan(
        run,
        rows,
        task,
        run_name(name, task.new_module()),
        holdout=holdout,
        split=None if data is None else split,
        epsilon=dp,
    )
    status = run.work(_announcer(run, told, register))
    dealt = {} if data is None else {"target": target, "split": split}
    asked = {} if dp is None else {"dp": dp, "delta": delta, "clip": clip, "dp_unit": dp_unit}
    given = {**dealt, "holdout": holdout, **asked}
    record = module_record(run, rows, task, given, loss, start)
    lines, losing = run.lines()
    return SimulationResult(
        status,
        _module_of(task, run.state),
        run.history,
        lines,
        losing,
        record,
        None if run.told is None else run.told.name,
        run.privacy,
        run,
        task,
    )


def _announcer(
    run: ModuleRun, plan: CreateRun, register: bool | None
) -> Callable[[], Registration | None]:
    """What announces the run; everything that can be refused is refused now."""
    from truststram_lab.federated.hosted.registration import Registration, shared_arrays
    from truststram_lab.federated.run_spending import RunSpending, check_limit, unannounced
    from truststram_lab.federated.site_work import check_together

    session = sessions.require("registering a simulation") if register else sessions.current()
    check_together(plan)
    check_limit(plan, None)

    def announce() -> Registration | None:
        told = None
        if session is not None and register is not False:
            told = Registration(session.client, plan, shared_arrays(run.state))
        if plan.privacy is not None:
            run.spending = RunSpending(unannounced(plan) if told is None else told.run)
        return told

    return announce


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise InvalidInputError(f"{name}={value} trains nothing; use 1 or more.", field=name)


def _rows(
    clients: Sequence[tuple[Any, Any]] | int,
    data: pd.DataFrame | None,
    target: str,
    split: str,
    holdout: float,
    seed: int,
) -> Rows:
    from truststram_lab.federated.hosted.modules import hold_out, rows_of_frame

    if isinstance(clients, int) != (data is not None):
        raise InvalidInputError(
            "Give either each client's own rows, simulate(model, [(X, y), ...]), or a number of "
            "clients and one table, simulate(model, 100, data=df, target='y').",
            field="clients",
        )
    if isinstance(clients, int):
        assert data is not None, "looked at above"
        return hold_out(rows_of_frame(data, target, clients, split, seed), holdout, seed)
    return hold_out(clients, holdout, seed)


def _hosted(clients: int, strategy: str | AnyStrategy, wish: HostWish) -> Hosted:
    return Hosted(
        clients=clients,
        strategy=as_strategy(strategy),
        fraction=wish.share,
        failures=wish.failures(),
        personal=None if wish.personal is None else parse_personal(wish.personal),
    )


def _seeded(model: torch.nn.Module | Callable[[], torch.nn.Module], seed: int) -> torch.nn.Module:
    import torch

    if isinstance(model, torch.nn.Module):
        return model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = model() if callable(model) else model
    if not isinstance(made, torch.nn.Module):
        raise InvalidInputError(
            f"The model is a {type(made).__name__}, not a torch module; give one, or a function "
            "that makes one.",
            field="model",
        )
    return made


def _run(
    plan: Plan, rows: Rows, task: Task, trainer: Trainer, progress: Callable[[str], None]
) -> ModuleRun:
    from truststram_lab.federated.hosted.module_record import device_of
    from truststram_lab.federated.hosted.module_run import ModuleRun
    from truststram_lab.learning.virtual import choose

    scored = [place for place, client in enumerate(rows.test) if client is not None]
    tests = [client for client in rows.test if client is not None]
    return ModuleRun(
        plan,
        trainer,
        choose(task, tests, "loop", device=device_of(trainer)) if tests else None,
        scored,
        np.array([len(client) for client in rows.train]),
        task.learning_rate,
        task.initial_state(),
        progress,
    )


def _module_of(task: Task, state: Mapping[str, np.ndarray]) -> torch.nn.Module:
    from truststram_lab.learning.virtual.evaluation import load

    module = task.new_module()
    load(module, state)
    return module.eval()


def _silent(text: str) -> None:
    """Nobody wants to know."""
