"""One virtual client after another: any module, any loss, any optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from ..privacy.dpsgd import private_gradient, refuse_shared_rows
from ..privacy.noise import NoiseSource, SecureRandom
from ..training import Stopped
from .draws import (
    DrawnDropout,
    NoRule,
    batch_of,
    dropout_shapes,
    dropped,
    mask_of,
    new_order,
)
from .evaluation import evaluate_all, evaluate_each, load
from .optimizers import Stepper
from .results import check_start, results
from .task import Adam, Client, Evaluation, Sgd, Task, Trained, Work, never, rows_of, tensor_of

__all__ = ["LoopTrainer", "drawn_dropouts", "row_masks"]


class LoopTrainer:
    """See ``task.Trainer``."""

    backend = "loop"
    chunk = 1

    def __init__(self, task: Task, clients: Sequence[Client], device: str, why: str) -> None:
        self.task = task
        self.clients = clients
        self.device = device
        self.why = why
        self._module = task.new_module(device)
        self._trained = {
            name: value for name, value in self._module.named_parameters() if value.requires_grad
        }
        x = rows_of(clients[0].x[:1], task.dtype, device)
        self._dropouts = drawn_dropouts(task.new_module(device), x)

    def train(
        self,
        start: Mapping[str, np.ndarray],
        works: Sequence[Work],
        should_stop: Callable[[], bool] = never,
    ) -> Iterator[Trained]:
        """See ``Trainer.train``."""
        check_start(start, self._module.state_dict())
        for work in works:
            own = start if work.start is None else work.start
            load(self._module, own)
            # The generator of what draws from torch's own: a module's other random layers.
            with torch.random.fork_rng(devices=[], enabled=self._dropouts is None):
                if self._dropouts is None:
                    torch.manual_seed(work.seed)
                steps = self._private if work.private is not None else self._plain
                losses, rows = steps(work, should_stop)
            trained = {
                name: value.detach().cpu().numpy()[None]
                for name, value in self._module.state_dict().items()
            }
            samples = len(self.clients[work.client])
            yield results(self.task, [work], start, trained, [samples], [losses], [rows])[0]

    def _rows(self, work: Work) -> tuple[torch.Tensor, torch.Tensor]:
        client = self.clients[work.client]
        return (
            rows_of(client.x, self.task.dtype, self.device),
            rows_of(client.y, self.task.dtype, self.device),
        )

    def _plain(self, work: Work, should_stop: Callable[[], bool]) -> tuple[np.ndarray, np.ndarray]:
        x, y = self._rows(work)
        generator = torch.Generator().manual_seed(work.seed)
        batches = -(-len(x) // self.task.batch_size)
        losses: list[torch.Tensor] = []
        sizes: list[int] = []
        step = self._stepper()
        add_terms = self._terms(work)
        order = torch.empty(0)

        def drop(value: torch.Tensor, rate: float) -> torch.Tensor:
            return dropped(value, mask_of(value.shape, rate, generator), rate)

        for done in range(work.steps_of(len(x), self.task.batch_size)):
            if should_stop():
                raise Stopped
            if done % batches == 0:
                order = new_order(len(x), generator)
            batch = batch_of(order, done, self.task.batch_size).to(self.device)
            loss = self._loss(x[batch], y[batch], drop)
            gradients = torch.autograd.grad(
                loss, list(self._trained.values()), allow_unused=True, materialize_grads=True
            )
            step(add_terms(gradients))
            losses.append(loss.detach())
            sizes.append(len(batch))
        return torch.stack(losses).cpu().numpy().astype(np.float64), np.array(sizes)

    def _loss(self, x: torch.Tensor, y: torch.Tensor, drop: Any) -> torch.Tensor:
        if self._dropouts:
            # Only where there is dropout: the mode costs some microseconds a call.
            with DrawnDropout(drop):
                outputs = self._module(x)
        else:
            outputs = self._module(x)
        return self.task.loss(outputs, y).mean()

    def _stepper(self) -> Callable[[Sequence[torch.Tensor]], None]:
        how = self.task.optimizer
        values = list(self._trained.values())
        if isinstance(how, Sgd | Adam):
            ours = Stepper(how, values)
            return lambda gradients: ours.step(values, gradients)
        other = how(values)

        def step(gradients: Sequence[torch.Tensor]) -> None:
            for value, gradient in zip(values, gradients, strict=True):
                value.grad = gradient
            other.step()

        return step

    def _terms(self, work: Work) -> Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]]:
        if not (work.pull or work.correction):
            return lambda gradients: gradients

        def like(state: Mapping[str, np.ndarray]) -> list[torch.Tensor]:
            return [
                tensor_of(state[name]).to(value.device, value.dtype)
                for name, value in self._trained.items()
            ]

        with torch.no_grad():
            here = [value.detach().clone() for value in self._trained.values()]
        anchor = here if work.anchor is None else like(work.anchor)
        correction = None if work.correction is None else like(work.correction)

        @torch.no_grad()
        def add(gradients: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
            # New tensors: autograd may hand out one that shares its memory.
            if work.pull:
                gradients = [
                    torch.add(gradient, value - to, alpha=work.pull)
                    for gradient, value, to in zip(
                        gradients, self._trained.values(), anchor, strict=True
                    )
                ]
            if correction is not None:
                gradients = [g + more for g, more in zip(gradients, correction, strict=True)]
            return gradients

        return add

    def _private(
        self, work: Work, should_stop: Callable[[], bool]
    ) -> tuple[np.ndarray, np.ndarray]:
        plan = work.private
        assert plan is not None
        refuse_shared_rows(self._module)
        x, y = self._rows(work)
        sampling = SecureRandom() if work.sampling is None else work.sampling
        noise = SecureRandom() if work.noise is None else work.noise
        losses: list[float] = []
        sizes: list[int] = []
        step, add_terms = self._stepper(), self._terms(work)
        for _ in range(plan.steps_per_round):
            if should_stop():
                raise Stopped
            masks = row_masks(self._dropouts or [], len(x), sampling, x.device, self.task.dtype)
            found, of_rows = private_gradient(
                self._row_loss, self._trained, [x, y, *masks], plan, sampling=sampling, noise=noise
            )
            step(add_terms([found[name] for name in self._trained]))
            losses.append(float(of_rows.mean()) if len(of_rows) else 0.0)
            sizes.append(len(of_rows))
        return np.array(losses), np.array(sizes)

    def _row_loss(
        self, weights: Any, x: torch.Tensor, y: torch.Tensor, *masks: torch.Tensor
    ) -> torch.Tensor:
        rest = iter(masks)
        with DrawnDropout(lambda value, rate: dropped(value, next(rest), rate)):
            outputs = functional_call(self._module, dict(weights), (x.unsqueeze(0),))
        return self.task.loss(outputs, y.unsqueeze(0)).mean()

    def evaluate(
        self,
        states: Mapping[str, np.ndarray] | Sequence[Mapping[str, np.ndarray]],
        clients: Sequence[int] | None = None,
    ) -> list[Evaluation]:
        """See ``Trainer.evaluate``."""
        places = range(len(self.clients)) if clients is None else clients

        def under(state: Mapping[str, np.ndarray], some: Sequence[int]) -> list[Evaluation]:
            return evaluate_all(self.task, self._module, state, self.clients, some, self.device)

        if isinstance(states, Mapping):
            return under(states, places)
        return evaluate_each(states, places, lambda state, place: under(state, [place])[0])


def drawn_dropouts(
    module: torch.nn.Module, x: torch.Tensor
) -> list[tuple[tuple[int, ...], float]] | None:
    """The dropouts of a pass; None where it draws in a way that ``DrawnDropout`` does not see."""
    before = torch.random.get_rng_state()
    try:
        # Statistics of a batch need two rows.
        found = dropout_shapes(module, torch.cat([x, x]))
    except NoRule:
        return None
    finally:
        drew = not torch.equal(before, torch.random.get_rng_state())
        torch.random.set_rng_state(before)
    return None if drew else found


def row_masks(
    dropouts: Sequence[tuple[tuple[int, ...], float]],
    rows: int,
    rng: NoiseSource,
    device: torch.device,
    dtype: str,
) -> list[torch.Tensor]:
    """What dropout keeps under DP-SGD, where a mask belongs to a row, not to a place."""
    found = []
    for shape, rate in dropouts:
        drawn = rng.random(rows * int(np.prod(shape, dtype=np.int64))).reshape(rows, *shape)
        found.append(torch.tensor(drawn >= rate, dtype=getattr(torch, dtype), device=device))
    return found
