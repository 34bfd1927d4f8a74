"""The network of the documents: built from a list of layers, trained with ``fit(X, y)``.

A torch module with the method names that people know from Keras. Importing this file loads
torch, so it is imported where a model is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from truststram_lab.exceptions import InsufficientResourcesError, InvalidInputError
from truststram_lab.learning.device import best_device
from truststram_lab.learning.memory import fitting_batch, is_out_of_memory, too_small
from truststram_lab.learning.training import initial_state, round_seed
from truststram_lab.schemas.registry import Architecture, DenseLayer, DropoutLayer

from .network_dropout import Dropout
from .network_layers import read_layers

__all__ = ["History", "NetworkModel"]

#: Rows that are measured at once.
_TOGETHER = 4096

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


class History(dict[str, list[float]]):
    """``loss`` and ``accuracy`` of every epoch, and ``val_loss``, ``val_accuracy`` with a split."""

    @property
    def history(self) -> History:
        """The same, under the name that Keras gives it."""
        return self


class NetworkModel(nn.Module):
    """A feed-forward classifier whose input size is found at the first data.

    The last layer is ``sigmoid`` with one unit (two classes, binary cross-entropy), or has one
    unit a class (``softmax`` or ``linear``, cross-entropy). Weights are in torch's layout: a
    dense layer's matrix has shape (units, inputs).

    Args:
        layers: mappings such as ``{"type": "dense", "units": 64, "activation": "relu"}`` and
            ``{"type": "dropout", "rate": 0.2}``.
        learning_rate: of Adam (or of SGD).
        optimizer: ``adam`` or ``sgd``; SCAFFOLD needs ``sgd``.
        seed: of the first weights, the order of the rows and dropout: equal seeds and calls give
            equal bits on one device.
        device: ``cuda``, ``mps`` or ``cpu``; the best there is by default.

    Raises:
        InvalidInputError: an unknown layer, activation or optimizer, or a value out of range.
    """

    def __init__(
        self,
        layers: Sequence[Mapping[str, Any]],
        *,
        learning_rate: float = 0.001,
        optimizer: str = "adam",
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__()
        if optimizer not in ("adam", "sgd"):
            raise InvalidInputError(
                f"{optimizer!r} is no optimizer of this model; choose adam or sgd.",
                field="optimizer",
            )
        if not (math.isfinite(learning_rate) and learning_rate > 0):
            raise InvalidInputError(
                f"learning_rate {learning_rate!r} is not a positive number; 0.001 is usual.",
                field="learning_rate",
            )
        self._described, self._two_classes = read_layers(layers)
        self._learning_rate, self._optimizer = learning_rate, optimizer
        self._seed, self._fits = seed, 0
        self._device = best_device(device)
        self._generator = torch.Generator()
        self._only_builds = False
        self.layers = nn.Sequential()

    @property
    def inputs(self) -> int | None:
        """The number of columns it takes; None before the first data or weights."""
        if not len(self.layers):
            return None
        first = self.layers[0]
        assert isinstance(first, nn.Linear)  # build begins with one
        return first.in_features

    def build(self, inputs: int) -> NetworkModel:
        """Make the weights for rows of ``inputs`` columns; the same seed gives the same ones."""
        architecture = Architecture(inputs=inputs, layers=self._described)
        state = initial_state(architecture, self._seed)
        width = inputs
        made = nn.Sequential()
        for place, layer in enumerate(self._described):
            if isinstance(layer, DropoutLayer):
                made.add_module(str(place), Dropout(layer.rate, self._generator))
                continue
            made.add_module(str(place), nn.Linear(width, layer.units, device="meta"))
            if layer.activation != "identity":
                made.add_module(f"{place} {layer.activation}", _ACTIVATIONS[layer.activation]())
            width = layer.units
        self.layers = made.to_empty(device=self._device)  # nothing of the process's randomness
        self.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of rows (n, inputs): (n, 1) for two classes, else (n, classes)."""
        out: torch.Tensor = self.layers(x)
        return out

    def get_weights(self) -> list[np.ndarray]:
        """Copies of the weights, in the order of the layers.

        Raises:
            InvalidInputError: there are none yet.
        """
        if not len(self.layers):
            raise InvalidInputError(
                "The model has no weights before it knows how many columns it gets; call fit, "
                "set_weights or build(inputs) first."
            )
        return [tensor.detach().cpu().numpy().copy() for tensor in self.state_dict().values()]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Take weights as ``get_weights`` gives them; the input size is the first matrix's.

        Raises:
            InvalidInputError: another number of arrays, or an array of another shape.
        """
        arrays = [np.asarray(_plain(value), dtype=np.float32) for value in weights]
        if self._only_builds and not arrays:
            return  # the federation has none yet either
        if arrays and arrays[0].ndim == 2 and self.inputs != arrays[0].shape[1]:
            self.build(arrays[0].shape[1])
        expected = dict(self.state_dict()) if len(self.layers) else {}
        if len(arrays) != len(expected):
            dense = sum(isinstance(layer, DenseLayer) for layer in self._described)
            raise InvalidInputError(
                f"set_weights got {len(arrays)} arrays, but the model has {2 * dense}: a matrix "
                "and a bias for each dense layer; pass what get_weights gives.",
                field="weights",
            )
        for (name, tensor), array in zip(expected.items(), arrays, strict=True):
            if tuple(tensor.shape) != array.shape:
                raise InvalidInputError(
                    f"set_weights got shape {array.shape} for {name}, expected "
                    f"{tuple(tensor.shape)}; pass what get_weights gives.",
                    field=name,
                )
        with torch.no_grad():
            for tensor, array in zip(expected.values(), arrays, strict=True):
                tensor.copy_(torch.from_numpy(array))

    def first_weights(self, use: Callable[[], Any]) -> None:
        """Call ``use``, which gives rows to ``fit``, until the weights are made; nothing trains.

        Raises:
            InvalidInputError: ``use`` ended without giving rows to this model.
        """
        self._only_builds = True
        try:
            use()
        except _BuiltError:
            return
        finally:
            self._only_builds = False
        raise InvalidInputError(
            "fit ended without training self.model, so the number of its columns is not known; "
            "call self.model.build(columns) first.",
            field="model",
        )

    def fit(
        self,
        x: Any,
        y: Any,
        epochs: int = 1,
        batch_size: int = 32,
        validation_split: float = 0.0,
        *,
        learning_rate: float | None = None,
    ) -> History:
        """Train on rows ``x`` (n, columns) with classes ``y`` (n,): 0 and 1, or 0 to k - 1.

        Args:
            x: DataFrame, array or tensor of finite numbers.
            validation_split: share of the rows, the last ones, that is measured, not trained on.

        Raises:
            InvalidInputError: rows or classes do not fit; the sentence names the column.
            InsufficientResourcesError: too little memory; the sentence has a batch size that fits.
        """
        rows, codes = self._table(x, y)
        if self._only_builds:
            raise _BuiltError
        _check_positive(epochs=epochs, batch_size=batch_size)
        if not 0 <= validation_split < 1:
            raise InvalidInputError(
                f"validation_split {validation_split!r} is not a share from 0 to below 1.",
                field="validation_split",
            )
        kept = len(rows) - int(len(rows) * validation_split)
        if not kept:
            raise InvalidInputError("No row is left to train on; give more rows.", field="x")
        self._generator.manual_seed(round_seed(self._seed, 1, self._fits))
        self._fits += 1
        rate = self._learning_rate if learning_rate is None else learning_rate
        kind = torch.optim.Adam if self._optimizer == "adam" else torch.optim.SGD
        steps = kind(self.parameters(), lr=rate)
        history = History()
        try:
            for _ in range(epochs):
                self._epoch(rows[:kept], codes[:kept], batch_size, steps)
                self._note(history, "", rows[:kept], codes[:kept])
                if kept < len(rows):
                    self._note(history, "val_", rows[kept:], codes[kept:])
            return history
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Here the error is gone, which held the frames that held the tensors.
        raise self._too_small(rows[:kept], codes[:kept], min(batch_size, kept))

    def evaluate(self, x: Any, y: Any) -> tuple[float, float]:
        """Mean loss in nats, and the share of rows classified rightly."""
        rows, codes = self._table(x, y)
        return self._measure(rows, codes)

    def predict(self, x: Any) -> np.ndarray:
        """Probabilities: (n, 1) of class 1 for two classes, else (n, classes)."""
        rows = self._rows(x)
        with torch.no_grad():
            logits = torch.cat(list(self._outputs(rows)))
            found = torch.sigmoid(logits) if self._two_classes else torch.softmax(logits, 1)
        shown: np.ndarray = found.cpu().numpy()
        return shown

    def _too_small(
        self, rows: torch.Tensor, codes: torch.Tensor, tried: int
    ) -> InsufficientResourcesError:
        def step(size: int) -> None:
            place = torch.arange(size) % len(rows)
            try:
                loss = self._loss(self(rows[place].to(self._device)), codes[place].to(self._device))
                torch.autograd.backward(loss)
            finally:
                self.zero_grad(set_to_none=True)

        self.zero_grad(set_to_none=True)
        device = torch.device(self._device).type
        return too_small(device, tried, fitting_batch(step, tried, device))

    def _epoch(
        self, rows: torch.Tensor, codes: torch.Tensor, size: int, steps: torch.optim.Optimizer
    ) -> None:
        self.train()
        order = torch.randperm(len(rows), generator=self._generator)
        for start in range(0, len(rows), size):
            place = order[start : start + size]
            steps.zero_grad()
            loss = self._loss(self(rows[place].to(self._device)), codes[place].to(self._device))
            torch.autograd.backward(loss)
            steps.step()

    def _loss(self, logits: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        if self._two_classes:
            return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], codes.float())
        return nn.functional.cross_entropy(logits, codes)

    def _measure(self, rows: torch.Tensor, codes: torch.Tensor) -> tuple[float, float]:
        with torch.no_grad():
            logits = torch.cat(list(self._outputs(rows))).cpu()
        guessed = (logits[:, 0] > 0).long() if self._two_classes else logits.argmax(1)
        return float(self._loss(logits, codes)), float((guessed == codes).float().mean())

    def _outputs(self, rows: torch.Tensor) -> Iterator[torch.Tensor]:
        self.eval()
        start, size = 0, _TOGETHER
        while start < len(rows):
            made = None
            try:
                made = self(rows[start : start + size].to(self._device))
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
            if made is None:
                size //= 2  # each row's result is its own
                continue
            yield made
            start += size

    def _note(self, history: History, prefix: str, rows: torch.Tensor, codes: torch.Tensor) -> None:
        loss, accuracy = self._measure(rows, codes)
        if not math.isfinite(loss):
            raise InvalidInputError(
                f"Training diverged at learning rate {self._learning_rate:g}: the loss is no "
                "longer a number; scale the columns, or lower the learning rate.",
                field="learning_rate",
            )
        history.setdefault(f"{prefix}loss", []).append(loss)
        history.setdefault(f"{prefix}accuracy", []).append(accuracy)

    def _table(self, x: Any, y: Any) -> tuple[torch.Tensor, torch.Tensor]:
        rows, codes = self._rows(x), np.asarray(_plain(y))
        if codes.ndim == 2 and codes.shape[1] == 1:
            codes = codes[:, 0]
        if codes.shape != (len(rows),):
            raise InvalidInputError(
                f"There are {len(rows)} rows, but the classes have shape {codes.shape}; give one "
                "class a row.",
                field="y",
            )
        dense = [layer.units for layer in self._described if isinstance(layer, DenseLayer)]
        classes = 2 if self._two_classes else dense[-1]
        whole = codes.dtype.kind in "biuf" and bool(np.all(codes == np.floor(codes)))
        if not whole or not len(codes) or codes.min() < 0 or codes.max() >= classes:
            shown = ", ".join(map(repr, np.unique(codes[:1000].astype(str))[:3].tolist()))
            raise InvalidInputError(
                f"The classes are such as {shown}; give whole numbers from 0 to {classes - 1}.",
                field="y",
            )
        return rows, torch.from_numpy(codes.astype(np.int64))

    def _rows(self, x: Any) -> torch.Tensor:
        names = [str(name) for name in getattr(x, "columns", ())]
        if names:
            wrong = [str(name) for name, dtype in x.dtypes.items() if dtype.kind not in "biuf"]
            if wrong:
                raise InvalidInputError(
                    f"Column {wrong[0]!r} holds no numbers; encode or drop {', '.join(wrong)}.",
                    field=wrong[0],
                )
        try:
            rows = np.asarray(_plain(x), dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(
                "The rows are no table of numbers; give a DataFrame, an array or a tensor.",
                field="x",
            ) from error
        if rows.ndim != 2 or not rows.size:
            raise InvalidInputError(
                f"The rows have shape {rows.shape}, expected (rows, columns) with at least one of "
                "each.",
                field="x",
            )
        finite = np.isfinite(rows)
        if not finite.all():
            place = int(np.argmin(finite.all(0)))
            name = names[place] if names else str(place)
            raise InvalidInputError(
                f"Column {name!r} has {int((~finite[:, place]).sum())} values that are missing or "
                "not finite; fill them in, or leave the rows out.",
                field=name,
            )
        if self.inputs is None:
            self.build(rows.shape[1])
        if rows.shape[1] != self.inputs:
            raise InvalidInputError(
                f"The rows have {rows.shape[1]} columns, but the model was built for "
                f"{self.inputs}; give the columns it was trained on.",
                field="x",
            )
        return torch.from_numpy(np.ascontiguousarray(rows))


class _BuiltError(Exception):
    """The weights are made, which was all that was wanted."""


def _plain(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise InvalidInputError(
                f"{name} is {value!r:.40}; give a whole number of at least 1.", field=name
            )
