"""One federation after the other, over the values of a parameter."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from truststram_lab.exceptions import InvalidInputError, RunStoppedError, nearest
from truststram_lab.federated import FederatedRun
from truststram_lab.federated.draft import Draft
from truststram_lab.render import Card, LiveCard, SweepLine, compared, live_sweep_card, sweep_card
from truststram_lab.schemas.federation import Run
from truststram_lab.schemas.strategies import AnyStrategy, as_strategy, strategy_text
from truststram_lab.widgets import LiveView, TerminalView
from truststram_lab.widgets.live import in_kernel, see

from . import session as sessions
from .drafting import drafted
from .federation import announced
from .results import Answer

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Point", "Sweep", "parse_sweep", "sweep"]

#: More runs than this are a mistake in a grid, or a day's work.
_MOST_RUNS = 200

#: What may be swept, and how its values are read from text.
_KINDS: dict[str, type] = {
    "clients": int, "rounds": int, "split": str, "epochs": int, "batch_size": int,
    "learning_rate": float, "strategy": str, "filters": str, "dp": float, "delta": float,
    "clip": float, "dp_unit": str, "fraction": float, "drop": float, "stragglers": float,
    "hostile": str, "personal": str, "by": str,
}  # fmt: skip
_SHORT = {"lr": "learning_rate", "filter": "filters"}


@dataclass(frozen=True)
class Point:
    """One run that is to be made: what is set, by name, and the seed."""

    values: dict[str, Any]
    seed: int

    @property
    def label(self) -> str:
        """What is set, in words, such as ``learning_rate=0.1``."""
        return ", ".join(f"{name}={_text(value)}" for name, value in self.values.items())


class Sweep(Answer, Sequence[FederatedRun]):
    """The runs of a sweep, in the order in which they were made.

    Attributes:
        status: ``running``, ``completed``, or ``stopped``: then what was done is here.
        points: every run that was asked for; the first ``len(sweep)`` of them were begun.
        deployed: the reference of the version that was deployed at the end; None without one.
    """

    def __init__(self, session: sessions.Session, points: list[Point], drafts: list[Draft]) -> None:
        self._session = session
        self._drafts = drafts
        self.points = points
        self.items: list[FederatedRun] = []
        self.status: Literal["running", "completed", "stopped"] = "running"
        self.deployed: str | None = None
        self._stop = threading.Event()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    @property
    def best(self) -> FederatedRun | None:
        """Of the value with the highest mean accuracy the run of the first seed.

        Of equally accurate ones the value with the lower mean loss. None before two values are
        compared by as many seeds.
        """
        ranked = self._ranked()
        return ranked[0] if ranked else None

    def to_frame(self) -> pd.DataFrame:
        """A line a run: what was set, the seed, and what came of it."""
        import pandas as pd

        lines = [
            {**point.values, "seed": point.seed, **vars(compared(run.snapshot()))}
            for point, run in zip(self.points, self.items, strict=False)
        ]
        return pd.DataFrame(lines)

    def card(self) -> Card:
        best = self.best
        return sweep_card(
            self._lines(),
            status=self.status,
            asked=len(self.points),
            best=None if best is None else best.name,
            deployed=self.deployed,
        )

    def live_card(self) -> LiveCard:
        """What is shown in the card's place while the sweep goes on."""
        return live_sweep_card(self._lines(), asked=len(self.points))

    def revision(self) -> object:
        """Another one whenever the card would tell something new."""
        return len(self.items), self.status, self.items[-1].revision() if self.items else None

    def snapshot(self) -> Run:
        """The run that goes on now, or was the last."""
        return self.items[-1].snapshot()

    def request_stop(self) -> None:
        """Stop the run that goes on, and begin no further one; returns at once."""
        self._stop.set()
        if self.items:
            self.items[-1].request_stop()

    def _lines(self) -> list[SweepLine]:
        return [
            SweepLine(point.label, point.seed, run.snapshot())
            for point, run in zip(self.points, self.items, strict=False)
        ]

    def _ranked(self) -> list[FederatedRun]:
        """The first run of every value, best first; only values with every seed count."""
        by_value: dict[str, list[FederatedRun]] = {}
        for point, run in zip(self.points, self.items, strict=False):
            if run.status == "completed":
                by_value.setdefault(point.label, []).append(run)
        most = max((len(made) for made in by_value.values()), default=0)
        scored = []
        for made in by_value.values():
            lines = [compared(run.snapshot()) for run in made]
            if len(made) == most and all(line.accuracy is not None for line in lines):
                accuracy = sum(line.accuracy or 0.0 for line in lines) / most
                loss = sum(line.loss or 0.0 for line in lines) / most
                scored.append((-accuracy, loss, made[0]))
        if len(scored) < 2:
            return []
        return [run for *_, run in sorted(scored, key=lambda entry: entry[:2])]

    def work(self) -> None:
        """Make the runs one after the other, live; an interrupt ends the sweep."""
        view = None
        if in_kernel():
            see(self)
            view = LiveView(
                self.card, self.request_stop, live=self.live_card, revision=self.revision
            )
        try:
            for place, draft in enumerate(self._drafts):
                if self._stop.is_set():
                    break
                self._one(draft, view, place)
        except (KeyboardInterrupt, RunStoppedError):
            self._stop.set()
            if self.items and self.items[-1].active:
                self.items[-1].stop()
        finally:
            done = len(self.items) == len(self.points) and not self._stop.is_set()
            self.status = "completed" if done else "stopped"
            self._drafts = []
            if done:
                self._deploy()
            if view is not None:
                view.close()

    def _one(self, draft: Draft, view: LiveView | None, place: int) -> None:
        run = announced(self._session, draft)
        self.items.append(run)
        if view is None:
            said = f"Sweep {place + 1}/{len(self.points)}: {self.points[place].label}"
            lines = TerminalView(run, said=said)
            run.start()
            lines.show()
            run.wait(tick=lines.refresh)
            return
        run.start()
        view.show()
        view.stops(run.snapshot())
        run.wait(tick=view.refresh)

    def _deploy(self) -> None:
        """The best, where results are deployed by themselves; a sweep never leaves the last."""
        best = self.best
        if best is None or self._session.identity.environment != "sandbox":
            return
        found = best.snapshot()
        reference = f"{found.plan.model}:{found.model_version}"
        self._session.client.deployments.create(reference)
        self.deployed = reference


def sweep(
    data: str | pd.DataFrame,
    over: str | Sequence[str] | Mapping[str, Sequence[Any]],
    *,
    seeds: int = 1,
    seed: int = 0,
    **options: Any,
) -> Sweep:
    """Federate once for every value of a parameter, and say which is best.

    All values are checked before anything trains. A stop (button, panel, interrupt) ends the run
    that goes on and begins no further one; what is completed stays. Where results are deployed
    by themselves, the best is, at the end; each run is a version of one model and can be
    replayed.

    Args:
        data: as ``federate``'s.
        over: ``{"learning_rate": [0.01, 0.1]}``, or texts such as ``learning_rate=0.01,0.1`` and
            ``strategy=fedavg|fedprox:mu=0.1`` (with ``|`` a value may hold commas). A parameter
            of the strategy goes by its own name: ``mu=0.01,0.1,1`` with ``strategy="fedprox"``.
            Several are combined, each value with each.
        seeds: runs for each value, with seeds ``seed``, ``seed + 1``, ...: one draw of the rows
            says little about a value.
        options: as ``federate``'s, but ``background``.

    Raises:
        InvalidInputError: a parameter, a value or an option cannot be used; nothing trained.
        PrivacyBudgetError: a run would pass ``dp_limit``; what was done before it stays.
    """
    session = sessions.require("sweeping")
    if options.pop("background", False):
        raise InvalidInputError(
            "A sweep does not run in the background; leave --background out, and stop it when you "
            "like: what is completed stays.",
            field="background",
        )
    grid = _grid(over, options.get("strategy", "fedavg"))
    if seeds < 1:
        raise InvalidInputError(f"seeds={seeds} makes no run; use 1 or more.", field="seeds")
    sets = [dict(zip(grid, chosen, strict=True)) for chosen in itertools.product(*grid.values())]
    points = [Point(values, seed + more) for more in range(seeds) for values in sets]
    if len(points) > _MOST_RUNS:
        raise InvalidInputError(
            f"{len(points)} runs are more than {_MOST_RUNS}; leave values or seeds out.",
            field="over",
        )
    drafts = [_draft(data, point, options) for point in points]
    found = Sweep(session, points, drafts)
    found.work()
    return found


def _draft(data: str | pd.DataFrame, point: Point, options: Mapping[str, Any]) -> Draft:
    chosen = {**options, **point.values}
    strategy = chosen.get("strategy", "fedavg")
    extra = {name: chosen.pop(name) for name in point.values if name not in _KINDS}
    if extra:
        chosen["strategy"] = _with_parameters(strategy, extra)
    if isinstance(chosen.get("filters"), str):
        chosen["filters"] = [chosen["filters"]]
    elif chosen.get("filters", ()) is None:
        chosen["filters"] = []
    try:
        return drafted(data, seed=point.seed, deploy=False, **chosen)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"With {point.label}: {error.message}", field=error.field or "over"
        ) from None


def _with_parameters(strategy: Any, parameters: Mapping[str, Any]) -> AnyStrategy:
    written = as_strategy(strategy)
    return as_strategy(
        {**written.model_dump(exclude_unset=True), **parameters, "name": written.name}
    )


def _grid(
    over: str | Sequence[str] | Mapping[str, Sequence[Any]], strategy: Any
) -> dict[str, list[Any]]:
    if isinstance(over, Mapping):
        wanted = {_SHORT.get(name, name): list(values) for name, values in over.items()}
    else:
        texts = [over] if isinstance(over, str) else list(over)
        wanted = {}
        for text in texts:
            name, values = parse_sweep(text)
            wanted.setdefault(name, []).extend(values)
    if not wanted:
        raise InvalidInputError(
            "Nothing to sweep over; name a parameter, such as learning_rate=0.01,0.1.",
            field="over",
        )
    for name, values in wanted.items():
        _check(name, values, strategy, wanted)
    return wanted


def _check(name: str, values: list[Any], strategy: Any, wanted: Mapping[str, Any]) -> None:
    if name == "seed":
        raise InvalidInputError(
            "Seeds are no parameter to choose the best of; write --seeds N for N runs of each "
            "value.",
            field="over",
        )
    parameters = [] if "strategy" in wanted else _parameters(strategy)
    if name not in _KINDS and name not in parameters:
        near = nearest(name, [*_KINDS, *parameters, "lr"], most=1)
        raise InvalidInputError(
            f"{name!r} is no parameter to sweep over; "
            + (f"did you mean {near[0]!r}?" if near else f"choose of {', '.join(_KINDS)}."),
            field="over",
            choices=[*_KINDS, *parameters],
        )
    texts = [_text(value) for value in values]
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        raise InvalidInputError(f"{name}={twice} comes twice; name it once.", field="over")


def _parameters(strategy: Any) -> list[str]:
    return [name for name in type(as_strategy(strategy)).model_fields if name != "name"]


def parse_sweep(text: str) -> tuple[str, list[Any]]:
    """``name=a,b`` or ``name=a|b`` as the name and its values.

    Numbers are read where the parameter is one; ``none`` leaves an option out.

    Raises:
        InvalidInputError: there is no name, or a value is empty or no number.
    """
    name, found, rest = text.partition("=")
    name = name.strip().replace("-", "_")
    name = _SHORT.get(name, name)
    values = [value.strip() for value in rest.split("|" if "|" in rest else ",")]
    if not found or not name or not all(values):
        raise InvalidInputError(
            f"{text!r} is no sweep; write a parameter and its values, such as "
            "learning_rate=0.01,0.1 or strategy=fedavg|fedprox:mu=0.1.",
            field="over",
        )
    return name, [_value(name, value) for value in values]


def _value(name: str, text: str) -> Any:
    kind = _KINDS.get(name)
    if text.lower() == "none" and kind is not None:
        return None
    if kind is str:
        return text
    for read in (int, float) if kind is None else (kind,):
        try:
            return read(text)
        except ValueError:
            continue
    if kind is None:
        return text
    word = "whole number" if kind is int else "number"
    raise InvalidInputError(f"{name}={text} is no {word}.", field="over")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return strategy_text(value) if hasattr(value, "least_updates") else str(value)
