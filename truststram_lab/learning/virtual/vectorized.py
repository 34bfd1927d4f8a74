"""Every virtual client of a chunk at once, by a module's ``Program`` over stacked weights.

The gradient of the sum of the clients' losses is each client's own gradient, for no client's loss
depends on another's weights. A step goes over the clients that still have one to take, so that no
momentum or moment of the others moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from ...exceptions import InsufficientResourcesError
from ..training import Stopped
from .draws import dropout_shapes
from .evaluation import evaluate_all
from .grouping import Group, groups_of, waste
from .losses import batched_losses
from .optimizers import Stepper
from .private import PrivateGroup
from .program import program_of
from .results import check_start, results
from .stack import Rows, Terms, evaluate_stacked, stacked
from .task import Adam, Client, Evaluation, Sgd, Task, Trained, Work, never, rows_of

__all__ = ["VectorizedTrainer"]


class VectorizedTrainer:
    """See ``task.Trainer``.

    Attributes:
        waste: the share of rows computed so far that only filled batches up, at most 0.5.
    """

    backend = "vectorized"

    def __init__(
        self, task: Task, clients: Sequence[Client], device: str, why: str, chunk: int
    ) -> None:
        self.task = task
        self.clients = clients
        self.device = device
        self.why = why
        self.chunk = chunk
        self._module = task.new_module(device)
        x = rows_of(clients[0].x[:1], task.dtype, device)
        self._dropouts = dropout_shapes(self._module, x)
        self._program = program_of(self._module, self._dropouts)
        self._quiet = program_of(task.new_module(device).eval(), [])
        self._trained = [
            name for name, value in self._module.named_parameters() if value.requires_grad
        ]
        self._used = self._filled = 0
        self._kept: tuple[tuple[int, ...], Rows] | None = None

    @property
    def waste(self) -> float:
        return waste(self._used, self._filled)

    def train(
        self,
        start: Mapping[str, np.ndarray],
        works: Sequence[Work],
        should_stop: Callable[[], bool] = never,
    ) -> Iterator[Trained]:
        """See ``Trainer.train``. Holds the deltas of four chunks at a time."""
        check_start(start, self._module.state_dict())
        window = 4 * self.chunk
        for first in range(0, len(works), window):
            part = works[first : first + window]
            done: list[Trained | None] = [None] * len(part)
            for group in self._groups(part):
                members = [part[place] for place in group.members]
                try:
                    found = self._group(start, members, group.private, should_stop)
                except torch.OutOfMemoryError:
                    found = None
                if found is None:
                    self._refuse_memory(len(members))
                for place, trained in zip(group.members, found or (), strict=True):
                    done[place] = trained
            for place in range(len(part)):
                one, done[place] = done[place], None
                assert one is not None
                yield one

    def _groups(self, works: Sequence[Work]) -> list[Group]:
        rows = [len(self.clients[work.client]) for work in works]
        steps = [
            work.steps_of(size, self.task.batch_size)
            for work, size in zip(works, rows, strict=True)
        ]
        private = [work.private is not None for work in works]
        return groups_of(rows, steps, private, self.task.batch_size, self.chunk)

    def _rows_of(self, works: Sequence[Work]) -> Rows:
        """The rows of the group; those of the last one are kept, as a round often repeats it."""
        clients = tuple(work.client for work in works)
        if self._kept is None or self._kept[0] != clients:
            self._kept = None  # one group's at a time
            members = [self.clients[client] for client in clients]
            self._kept = clients, Rows(members, self.task, self.device)
        return self._kept[1]

    def _refuse_memory(self, members: int) -> None:
        self._kept = None
        if self.device == "cuda":
            torch.cuda.empty_cache()
        raise InsufficientResourcesError(
            f"{self.device} has too little memory for {members} clients at once; its memory is "
            f"free again: choose a chunk of {max(1, members // 4)} or less, or device cpu."
        )

    def _group(
        self,
        start: Mapping[str, np.ndarray],
        works: Sequence[Work],
        private: bool,
        should_stop: Callable[[], bool],
    ) -> list[Trained]:
        states = [start if work.start is None else work.start for work in works]
        for state in states:
            if state is not start:
                check_start(state, self._module.state_dict())
        weights = stacked(states, self.task.dtype, self.device)
        rows = self._rows_of(works)
        terms = Terms(works, {name: weights[name] for name in self._trained})
        if private:
            losses, sizes = self._private(works, weights, rows, terms, should_stop)
        else:
            losses, sizes = self._plain(works, weights, rows, terms, should_stop)
        trained = {name: value.cpu().numpy() for name, value in weights.items()}
        return results(self.task, works, start, trained, rows.sizes, losses, sizes)

    def _stepper(self, weights: Mapping[str, torch.Tensor]) -> Stepper:
        how = self.task.optimizer
        assert isinstance(how, Sgd | Adam)
        return Stepper(how, [weights[name] for name in self._trained])

    def _plain(
        self,
        works: Sequence[Work],
        weights: Mapping[str, torch.Tensor],
        rows: Rows,
        terms: Terms,
        should_stop: Callable[[], bool],
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        steps = [
            work.steps_of(size, self.task.batch_size)
            for work, size in zip(works, rows.sizes, strict=True)
        ]
        generators = [torch.Generator().manual_seed(work.seed) for work in works]
        stepper = self._stepper(weights)
        losses: list[torch.Tensor] = []
        counts: list[np.ndarray] = []
        for done, active in _at_work(steps, should_stop):
            batch = rows.batch(done, active, generators)
            leaves = {name: value[:active] for name, value in weights.items()}
            wanted = [leaves[name].detach().requires_grad_() for name in self._trained]
            leaves.update(zip(self._trained, wanted, strict=True))
            outputs = self._program(leaves, batch.x, batch.drop(generators))
            each = batch.mean(batched_losses(self.task.loss, outputs, batch.y))
            gradients = torch.autograd.grad(
                each.sum(), wanted, allow_unused=True, materialize_grads=True
            )
            values = [weights[name][:active] for name in self._trained]
            stepper.step(values, terms.add(values, list(gradients)), active)
            losses.append(each.detach())
            counts.append(batch.counts)
            self._used += batch.used
            self._filled += active * batch.width
        return _by_client(losses, steps), _by_client([torch.from_numpy(c) for c in counts], steps)

    def _private(
        self,
        works: Sequence[Work],
        weights: Mapping[str, torch.Tensor],
        rows: Rows,
        terms: Terms,
        should_stop: Callable[[], bool],
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        group = PrivateGroup(
            self.task, self._module, self._program, self._dropouts, self._trained, works
        )
        steps = [work.private.steps_per_round for work in works if work.private is not None]
        stepper = self._stepper(weights)
        losses: list[torch.Tensor] = []
        counts: list[torch.Tensor] = []
        for _, active in _at_work(steps, should_stop):
            gradients, loss, count = group.gradients(weights, rows, active)
            values = [weights[name][:active] for name in self._trained]
            stepper.step(values, terms.add(values, gradients), active)
            losses.append(loss)
            counts.append(count)
        return _by_client(losses, steps), _by_client(counts, steps)

    def evaluate(
        self,
        states: Mapping[str, np.ndarray] | Sequence[Mapping[str, np.ndarray]],
        clients: Sequence[int] | None = None,
    ) -> list[Evaluation]:
        """See ``Trainer.evaluate``."""
        places = range(len(self.clients)) if clients is None else clients
        if isinstance(states, Mapping):
            return evaluate_all(self.task, self._module, states, self.clients, places, self.device)
        return evaluate_stacked(
            self.task, self._quiet, states, self.clients, places, self.device, self.chunk
        )


def _at_work(steps: Sequence[int], should_stop: Callable[[], bool]) -> Iterator[tuple[int, int]]:
    """Each step, and how many clients still take it: the first ones, who have the most to take.

    Raises:
        Stopped: ``should_stop`` said so, asked before every step.
    """
    active = len(steps)
    for done in range(steps[0]):
        if should_stop():
            raise Stopped
        while steps[active - 1] <= done:
            active -= 1
        yield done, active


def _by_client(of_steps: Sequence[torch.Tensor], steps: Sequence[int]) -> list[np.ndarray]:
    """What each step gave for its clients, the first ones, as what each client had."""
    table = np.zeros((len(steps), len(of_steps)))
    # One look a round: reading a number makes an accelerator wait.
    flat = torch.cat(list(of_steps)).cpu().to(torch.float64).numpy()
    at = 0
    for step, part in enumerate(of_steps):
        table[: len(part), step] = flat[at : at + len(part)]
        at += len(part)
    return [table[place, :taken] for place, taken in enumerate(steps)]
