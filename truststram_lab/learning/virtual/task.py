"""What virtual clients share, what one client does in a round, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np

from ...exceptions import InvalidInputError
from ...schemas.federation import LocalTraining
from ...schemas.privacy import RecordPlan
from ...schemas.registry import Architecture
from ..privacy.noise import NoiseSource
from ..training import build_module
from ..weights import State

if TYPE_CHECKING:
    import torch

__all__ = [
    "Adam",
    "AdamW",
    "Client",
    "Evaluation",
    "Loss",
    "Optimizer",
    "Sgd",
    "Task",
    "Trained",
    "Trainer",
    "Work",
    "default_loss",
    "never",
    "rows_of",
    "tensor_of",
]

#: (outputs (n, ...), targets (n, ...)) -> a mean over the rows, or one number a row (n,).
Loss: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"


@dataclass(frozen=True)
class Sgd:
    """SGD as ``torch.optim.SGD`` defines it, with a new velocity every round."""

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False


@dataclass(frozen=True)
class Adam:
    """Adam as ``torch.optim.Adam`` defines it, with new moments every round.

    Kingma and Ba 2015, "Adam", algorithm 1. https://arxiv.org/abs/1412.6980
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    #: Whether weights shrink apart from the gradient, or the decay is added to it.
    decoupled: ClassVar[bool] = False


@dataclass(frozen=True)
class AdamW(Adam):
    """AdamW as ``torch.optim.AdamW`` defines it, with new moments every round.

    Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2.
    https://arxiv.org/abs/1711.05101
    """

    weight_decay: float = 0.01
    decoupled: ClassVar[bool] = True


#: A description that both trainers know, or (parameters) -> torch optimizer, for the loop alone.
Optimizer: TypeAlias = "Sgd | Adam | Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]"


def default_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A loss a row (n,): cross entropy of k > 1 logits, binary cross entropy of one, in nats.

    Args:
        outputs: logits (n, k).
        targets: class places (n,); with one logit, 1 is the positive class.
    """
    from torch.nn import functional

    if outputs.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(
            outputs[:, 0], targets.to(outputs.dtype), reduction="none"
        )
    return functional.cross_entropy(outputs, targets, reduction="none")


@dataclass(frozen=True, eq=False)
class Task:
    """What all virtual clients train.

    Args:
        module: a torch module, which stays as it is, or a function that makes one. Its
            ``state_dict`` names the weights of every State here.
        loss: see ``Loss``.
        optimizer: see ``Optimizer``.
        batch_size: rows of a step; the last batch of an epoch may be smaller.
        dtype: of the arithmetic; weights keep their own type outside.
    """

    module: torch.nn.Module | Callable[[], torch.nn.Module]
    loss: Loss = default_loss
    optimizer: Optimizer = Sgd(0.1)
    batch_size: int = 16
    dtype: Literal["float32", "float64"] = "float32"

    @classmethod
    def from_architecture(cls, architecture: Architecture, local: LocalTraining) -> Task:
        """The task whose arithmetic is that of ``learning.training.train``."""
        return cls(
            lambda: build_module(architecture),
            optimizer=Sgd(local.learning_rate, local.momentum, local.weight_decay),
            batch_size=local.batch_size,
            dtype=local.dtype,
        )

    def new_module(self, device: str = "cpu") -> torch.nn.Module:
        """A module of its own, in training mode, in the task's type."""
        import copy

        import torch

        given = self.module
        made = copy.deepcopy(given) if isinstance(given, torch.nn.Module) else given()
        return made.to(device=device, dtype=getattr(torch, self.dtype)).train()

    def initial_state(self) -> State:
        """The weights and buffers of the module as it is given or made."""
        module = self.new_module()
        return {name: value.numpy().copy() for name, value in module.state_dict().items()}

    @property
    def learning_rate(self) -> float | None:
        """The optimizer's rate, None where only its maker knows it."""
        return self.optimizer.lr if isinstance(self.optimizer, Sgd | Adam) else None


@dataclass(frozen=True, eq=False)
class Client:
    """One client's rows: ``x`` (n, ...) floats or whole numbers (tokens), ``y`` (n, ...).

    numpy or torch. Floats are taken in the task's type, whole numbers as int64.

    Raises:
        InvalidInputError: there are no rows, or not as many of ``x`` as of ``y``.
    """

    x: np.ndarray | torch.Tensor
    y: np.ndarray | torch.Tensor

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or not len(self.x):
            raise InvalidInputError(
                f"A client has {len(self.x)} rows and {len(self.y)} targets, but needs as many of "
                "one as of the other, and at least one; leave empty clients out."
            )

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class Work:
    """What one client does in one round.

    Args:
        client: its place in the trainer's clients.
        seed: of batch order and dropout, see ``training.round_seed``.
        epochs: passes over the rows.
        steps: optimizer steps instead of ``epochs``: fewer for a straggler.
        start: weights to start from, where they are the client's own (Ditto's personal model).
        pull: adds pull * (w - anchor) to every gradient: FedProx's mu, Ditto's lambda.
        anchor: what it is pulled to; by default the weights it starts from.
        correction: adds this to every gradient, by weight: SCAFFOLD's c - c_i.
        clip: bound on the L2 norm of the delta's floats.
        private: DP-SGD: secret Poisson samples, clipped rows, noise; takes the plan's steps.
        sampling, noise: of DP-SGD; by default keys that are kept nowhere.
    """

    client: int
    seed: int
    epochs: int = 1
    steps: int | None = None
    start: Mapping[str, np.ndarray] | None = None
    pull: float = 0.0
    anchor: Mapping[str, np.ndarray] | None = None
    correction: Mapping[str, np.ndarray] | None = None
    clip: float | None = None
    private: RecordPlan | None = None
    sampling: NoiseSource | None = None
    noise: NoiseSource | None = None

    def steps_of(self, rows: int, batch_size: int) -> int:
        """Optimizer steps over ``rows`` rows.

        Raises:
            InvalidInputError: ``epochs`` or ``steps`` is not positive.
        """
        if self.private is not None:
            return self.private.steps_per_round
        steps = self.epochs * -(-rows // batch_size) if self.steps is None else self.steps
        if steps < 1:
            raise InvalidInputError(
                f"Client {self.client} is to take {steps} steps; use 1 or more, or leave it out.",
                field="steps",
            )
        return steps


@dataclass(frozen=True, eq=False)
class Trained:
    """What one client's round gave.

    Attributes:
        delta: trained minus start, in the start's types; buffers such as running means too.
            A view into arrays of the whole chunk: copy what is to be kept.
        samples: the client's rows.
        steps: taken.
        loss: mean over the rows of the last epoch, each before its step, as ``training.train``.
        losses: of every step's batch, float64 (steps,).
    """

    client: int
    delta: State
    samples: int
    steps: int
    loss: float
    losses: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """A client's loss, and the share of its rows whose largest logit is the target's.

    ``accuracy`` is None where the outputs are not logits of classes.
    """

    client: int
    samples: int
    loss: float
    accuracy: float | None


class Trainer(Protocol):
    """Trains virtual clients.

    Attributes:
        backend: "vectorized" or "loop"; choosing it by name again gives the same bits.
        why: one sentence on why this backend.
        chunk: clients trained at once.
    """

    backend: str
    why: str
    chunk: int

    def train(
        self,
        start: Mapping[str, np.ndarray],
        works: Sequence[Work],
        should_stop: Callable[[], bool] = ...,
    ) -> Iterator[Trained]:
        """Train each work's client from ``start``; results in the order given.

        Raises:
            Stopped: ``should_stop`` said so, asked before every step.
            InvalidInputError: weights or rows do not fit the module, or training diverged.
        """

    def evaluate(
        self,
        states: Mapping[str, np.ndarray] | Sequence[Mapping[str, np.ndarray]],
        clients: Sequence[int] | None = None,
    ) -> list[Evaluation]:
        """Loss and accuracy of each client (by default all) under one state, or one each."""


def never() -> bool:
    """No stop."""
    return False


def tensor_of(values: Any) -> torch.Tensor:
    """A tensor on the array's own memory, or on a copy where torch could not write."""
    import torch

    array = np.asarray(values)
    usable = array.flags.writeable and array.dtype.isnative and min(array.strides, default=0) >= 0
    return torch.from_numpy(array if usable else array.astype(array.dtype.newbyteorder("=")))


def rows_of(values: Any, dtype: str, device: str) -> torch.Tensor:
    """A client's rows as a tensor: floats in the task's type, whole numbers as int64."""
    import torch

    found = values if isinstance(values, torch.Tensor) else tensor_of(values)
    wanted = getattr(torch, dtype) if found.is_floating_point() else torch.int64
    return found.to(device=device, dtype=wanted)
