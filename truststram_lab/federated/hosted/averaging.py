"""One model of all virtual clients' updates: what each would send, and their aggregate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.filters import run_filters
from truststram_lab.learning.personal import split_head
from truststram_lab.learning.privacy.mechanisms import noised_mean
from truststram_lab.learning.strategies import aggregate
from truststram_lab.learning.virtual import Trained
from truststram_lab.learning.weights import State
from truststram_lab.schemas.filters import Filter, Quantization, Sparsification
from truststram_lab.schemas.personal import FedPer
from truststram_lab.schemas.privacy import ClientPlan
from truststram_lab.schemas.simulation import Hosted
from truststram_lab.schemas.strategies import Scaffold

from .client_memory import ClientMemory
from .failures import Turn, attacked, hostile_clients

__all__ = ["Averaging", "keeps_back"]

#: Clients whose updates are in memory at once where only their mean is wanted.
_BUFFER = 256


def keeps_back(filters: Iterable[Filter]) -> bool:
    """Whether a client keeps what a filter leaves unsent, for its next update."""
    return any(isinstance(found, Sparsification | Quantization) for found in filters)


class Averaging:
    """Makes one model of a round's updates, in the clients' order.

    Args:
        sizes: rows of each client, int (clients,).
        seed: of the run; it decides who is hostile.
        privacy: of clients: every update is clipped, and their sum gets noise, here.
        progress: told in a few words how far the round is.
    """

    def __init__(
        self,
        hosted: Hosted,
        sizes: np.ndarray,
        *,
        seed: int,
        filters: Sequence[Filter] = (),
        privacy: ClientPlan | None = None,
        progress: Callable[[str], None],
    ) -> None:
        self._hosted = hosted
        self._sizes = sizes
        self._filters = filters
        self._privacy = privacy
        self._progress = progress
        self._hostile = hostile_clients(hosted, seed)

    def next_model(
        self,
        base: State,
        turns: Sequence[Turn],
        trained: Iterable[Trained],
        memory: ClientMemory,
        learning_rate: float | None,
    ) -> tuple[State, dict[str, float]]:
        """The next global model, and what the round measured: loss, samples, clients.

        Args:
            trained: of each turn, in their order; each is let go of as soon as it is added.
            learning_rate: of the local optimizer; SCAFFOLD alone needs it.

        Raises:
            InvalidInputError: the mean is no longer a number, or too few updates came.
        """
        if self._privacy is not None:
            return self._noised(base, trained, memory, self._privacy), {}
        strategy = self._hosted.strategy
        total = float(self._sizes[[turn.client for turn in turns]].sum())
        sums: dict[str, np.ndarray] = {}
        held: list[State] = []
        buffer: list[State] = []
        shares: list[float] = []
        loss = 0.0
        for done, one in enumerate(trained, start=1):
            update = dict(one.delta)
            if isinstance(strategy, Scaffold):
                assert learning_rate is not None, "the caller refuses SCAFFOLD without a rate"
                path = one.steps * learning_rate
                update |= memory.new_control(one.client, one.delta, path)
            update = self._leaving(one.client, update, memory)
            loss += one.loss * one.samples / total
            if strategy.sees_single_updates:
                held.append({name: array.copy() for name, array in update.items()})
                continue
            buffer.append(update)
            shares.append(one.samples / total)
            if len(buffer) == _BUFFER or done == len(turns):
                _add(sums, buffer, shares)
                buffer, shares = [], []
                self._progress(f"{done:,} of {len(turns):,} clients")
        if not held:
            like = update
            held = [{name: sums[name].astype(like[name].dtype) for name in like}]
        made = aggregate(
            strategy,
            base,
            held,
            [1.0] * len(held),
            memory.server,
            participation=min(1.0, total / float(self._sizes.sum())),
        )
        memory.server = made.server_state
        metrics = {"loss": loss, "samples": total, "clients": float(len(turns))}
        return made.state, metrics

    def _noised(
        self, base: State, trained: Iterable[Trained], memory: ClientMemory, privacy: ClientPlan
    ) -> State:
        """DP-FedAvg: who was drawn and stayed away counts as zero, and all weigh the same.

        Nothing else of the round is told: losses and counts would say who was in it.
        """
        personal = self._hosted.personal
        # What no client shares gets no noise, either.
        shared = split_head(base, personal.head)[0] if isinstance(personal, FedPer) else base

        def updates() -> Iterator[State]:
            for done, one in enumerate(trained, start=1):
                update = self._leaving(one.client, dict(one.delta), memory)
                yield {name: update[name] for name in shared}
                if done % _BUFFER == 0:
                    self._progress(f"{done:,} clients")

        mean = noised_mean(updates(), shared, privacy)
        update = {name: mean[name] if name in mean else np.zeros_like(base[name]) for name in base}
        made = aggregate(self._hosted.strategy, base, [update], [1.0], memory.server)
        memory.server = made.server_state
        return made.state

    def _leaving(self, client: int, update: State, memory: ClientMemory) -> State:
        """What the client would send: after its filters, or what it attacks with."""
        hostile = self._hosted.failures.hostile
        if hostile is not None and client in self._hostile and hostile.attack != "label_flip":
            return attacked(update, hostile)
        if not self._filters:
            return update
        feedback = memory.feedback(client) if keeps_back(self._filters) else None
        filtered = run_filters(update, self._filters, feedback=feedback)
        if filtered.feedback is not None:
            memory.keep(client, filtered.feedback)
        return filtered.delta()


def _add(sums: dict[str, np.ndarray], updates: list[State], shares: list[float]) -> None:
    """Add shares of updates, in float64 and in their order."""
    share = np.asarray(shares)
    for name in updates[0]:
        stack = np.stack([update[name] for update in updates])
        part = np.einsum("k,k...->...", share, stack.astype(np.float64))
        if not np.isfinite(part).all():
            raise InvalidInputError(
                f"The mean of the clients' {name!r} is no longer a number; lower the learning "
                "rate, or choose a robust strategy.",
                field="strategy",
            )
        sums[name] = sums[name] + part if name in sums else part
