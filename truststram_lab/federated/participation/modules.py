"""A torch module as local training: its loss, its optimizer, the site's rows. Torch on use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from truststram_lab.exceptions import InsufficientResourcesError, InvalidInputError
from truststram_lab.learning.memory import fitting_batch, is_out_of_memory, too_small
from truststram_lab.learning.training import Stopped, round_seed
from truststram_lab.learning.weights import State

from .forms import Form, read_like
from .functions import Config, Trained

if TYPE_CHECKING:
    import torch

__all__ = ["ModuleTraining", "loss_for"]

Loss = Callable[[Any, Any], Any]
OptimizerFactory = Callable[[Iterable[Any]], Any]


@dataclass(frozen=True, eq=False)
class ModuleTraining:
    """Minibatch training of any torch module on a site's rows.

    Args:
        module: trained in place, on its own device; its ``state_dict`` names the arrays.
        x: rows, an array or tensor (n, ...).
        y: targets, an array or tensor (n, ...).
        loss: ``loss(module(x), y)`` gives a scalar, the mean over the batch.
        optimizer: makes an optimizer of the parameters; by default SGD with the round's
            ``learning_rate``.
        seed: of the order of the rows; a round's order depends on its number, too.
        should_stop: asked before each optimizer step.
    """

    module: torch.nn.Module
    x: Any = field(repr=False)
    y: Any = field(repr=False)
    loss: Loss
    optimizer: OptimizerFactory | None = None
    seed: int = 0
    should_stop: Callable[[], bool] = lambda: False

    def __call__(self, base: State, config: Config) -> Trained:
        """Train from ``base``; metrics are the mean ``loss`` of the last epoch.

        Raises:
            Stopped: ``should_stop`` said so.
            InsufficientResourcesError: the device's memory is too small; the sentence has the
                batch size that was tried and fits.
        """

        if not len(self.x) or len(self.x) != len(self.y):
            raise InvalidInputError(
                f"There are {len(self.x)} rows and {len(self.y)} targets to train on; give one "
                "target a row, and at least one row.",
                field="data",
            )
        own = self.module.state_dict()
        self.module.load_state_dict(Form("tensors", own).give(base))
        try:
            loss = self._train(config)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            loss = None
        if loss is None:  # here the error is gone, which held the frames that held the tensors
            raise self._too_small(int(config["batch_size"]))
        state = read_like(self.module.state_dict(), base, "training")
        return Trained(state, len(self.x), {"loss": loss})

    def _train(self, config: Config) -> float:
        import torch

        device = next(self.module.parameters()).device
        x, y = torch.as_tensor(self.x), torch.as_tensor(self.y)
        seed = round_seed(self.seed, 0, int(config.get("round", 0)))
        generator = torch.Generator().manual_seed(seed)
        optimizer = (self.optimizer or _sgd(config))(self.module.parameters())
        size, total = int(config["batch_size"]), 0.0
        self.module.train()
        for _ in range(int(config["epochs"])):
            summed = torch.zeros((), device=device)
            order = torch.randperm(len(x), generator=generator)
            for start in range(0, len(x), size):
                if self.should_stop():
                    raise Stopped
                place = order[start : start + size]
                optimizer.zero_grad()
                loss = self.loss(self.module(x[place].to(device)), y[place].to(device))
                loss.backward()
                optimizer.step()
                summed += loss.detach() * len(place)
            total = float(summed) / len(x)  # one look an epoch: it makes an accelerator wait
        return total

    def _too_small(self, size: int) -> InsufficientResourcesError:
        import torch

        device = next(self.module.parameters()).device
        x, y = torch.as_tensor(self.x), torch.as_tensor(self.y)

        def step(rows: int) -> None:
            places = torch.arange(rows) % len(x)
            try:
                self.loss(self.module(x[places].to(device)), y[places].to(device)).backward()
            finally:
                self.module.zero_grad(set_to_none=True)

        self.module.zero_grad(set_to_none=True)
        tried = min(size, len(x))
        return too_small(device.type, tried, fitting_batch(step, tried, device.type))


def _sgd(config: Config) -> OptimizerFactory:
    def make(parameters: Iterable[Any]) -> Any:
        import torch

        return torch.optim.SGD(parameters, lr=float(config["learning_rate"]))

    return make


def loss_for(outputs: int) -> Loss:
    """The loss of logits: binary cross-entropy for one output, else cross-entropy."""

    def loss(logits: Any, targets: Any) -> Any:
        from torch.nn import functional

        if outputs == 1:
            return functional.binary_cross_entropy_with_logits(
                logits[:, 0], targets.to(logits.dtype)
            )
        return functional.cross_entropy(logits, targets.long())

    return loss
