"""Any torch module in a federation in this kernel: the clients' rows, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from truststram_lab.exceptions import InvalidInputError, nearest
from truststram_lab.learning.partition import stratified_holdout
from truststram_lab.learning.splits import deal_rows
from truststram_lab.learning.statistics import local_moments, merge_moments
from truststram_lab.learning.virtual import Adam, AdamW, Client, Sgd, Task
from truststram_lab.learning.virtual.task import Optimizer
from truststram_lab.preprocessing import TableEncoder, infer_signature, target_codes
from truststram_lab.schemas.simulation import Hosted
from truststram_lab.schemas.splits import parse_split
from truststram_lab.schemas.strategies import Scaffold

from .failures import flipped, hostile_clients

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Rows", "as_optimizer", "check_fit", "hold_out", "optimizer_record", "rows_of_frame"]

_OPTIMIZERS: dict[str, type[Sgd | Adam]] = {"sgd": Sgd, "adam": Adam, "adamw": AdamW}

#: Part of the seed of what is dealt and held out, apart from every other draw.
_DEALT = 0xDEA1


@dataclass(frozen=True)
class Rows:
    """Each client's rows to train on, and those that only score it; None where it has none."""

    train: list[Client]
    test: list[Client | None]

    def sha256(self) -> str:
        """A fingerprint of all values, in their order."""
        found = hashlib.sha256()
        for client in (*self.train, *(one for one in self.test if one is not None)):
            for values in (client.x, client.y):
                array = np.ascontiguousarray(np.asarray(values))
                found.update(f"{array.dtype}{array.shape}".encode())
                found.update(array.tobytes())
        return found.hexdigest()

    def count(self) -> int:
        """All rows, each once."""
        kept = zip(self.train, self.test, strict=True)
        return sum(
            len(one) + (len(other) if other is not None and other is not one else 0)
            for one, other in kept
        )

    def attacked_by(self, hosted: Hosted, seed: int) -> list[Client]:
        """What is trained on: the clients that flip labels have flipped ones."""
        hostile = hosted.failures.hostile
        if hostile is None or hostile.attack != "label_flip":
            return self.train
        turned = hostile_clients(hosted, seed)
        labels = [np.asarray(client.y) for client in self.train]
        if any(found.dtype.kind not in "iub" or found.ndim != 1 for found in labels):
            raise InvalidInputError(
                "Only class labels can be flipped, and these targets are none; choose another "
                "attack, such as hostile='0.2:sign_flip'.",
                field="hostile",
            )
        classes = 1 + max(int(found.max()) for found in labels)
        return [
            Client(client.x, flipped(labels[place].astype(np.int64), classes))
            if place in turned
            else client
            for place, client in enumerate(self.train)
        ]


def rows_of_frame(
    frame: pd.DataFrame, target: str, clients: int, split: str, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The rows of a table, encoded and dealt to ``clients`` virtual clients.

    Raises:
        InvalidInputError: the table, the target or the split cannot be used.
    """
    signature = infer_signature(frame, target, None)
    codes = target_codes(frame, signature)
    features = frame.drop(columns=[target])
    statistics = merge_moments([local_moments(features, signature)], signature)
    x = np.ascontiguousarray(TableEncoder(signature, statistics).encode_frame(features))
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DEALT, 0)))
    parts, _ = deal_rows(codes, clients, parse_split(split), rng, min_rows=1, min_classes=None)
    return [(x[part], codes[part]) for part in parts]


def hold_out(pairs: Sequence[Any], share: float, seed: int) -> Rows:
    """Keep a share of each client's rows to score it, by class where there are classes.

    A client with too few rows for that trains on all of them and is not scored.

    Raises:
        InvalidInputError: there are no clients, one has no rows or is no pair of rows and
            targets, or the share is out of range.
    """
    if not 0 <= share < 1:
        raise InvalidInputError(
            f"A share of {share:g} cannot be held out; give holdout=0 to score on the rows that "
            "were trained on, or a number below 1, such as 0.25.",
            field="holdout",
        )
    if not len(pairs):
        raise InvalidInputError("There are no clients to train; give one or more.", field="clients")
    train: list[Client] = []
    test: list[Client | None] = []
    for place, pair in enumerate(pairs):
        client = _client(place, pair)
        kept = None if share == 0 else _places(client, share, seed, place)
        if kept is None:
            train.append(client)
            test.append(client if share == 0 else None)
            continue
        learn, score = kept
        train.append(Client(client.x[learn], client.y[learn]))
        test.append(Client(client.x[score], client.y[score]))
    return Rows(train, test)


def _client(place: int, pair: Any) -> Client:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InvalidInputError(
            f"Client {place} is no pair of rows and targets; give (X, y) of each client.",
            field="clients",
        )
    x, y = (one if hasattr(one, "detach") else np.asarray(one) for one in pair)
    for values, what in ((x, "rows"), (y, "targets")):
        if isinstance(values, np.ndarray) and values.dtype.kind not in "iubf":
            raise InvalidInputError(
                f"The {what} of client {place} are {values.dtype}, no numbers; encode them, and "
                "number the classes from 0, or give a table as data=.",
                field="clients",
            )
    try:
        return Client(x, y)
    except InvalidInputError as error:
        raise InvalidInputError(f"Client {place}: {error}", field="clients") from None


def _places(
    client: Client, share: float, seed: int, place: int
) -> tuple[np.ndarray, np.ndarray] | None:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DEALT, 1, place)))
    y = np.asarray(client.y)
    classes = y.ndim == 1 and y.dtype.kind in "iub"
    try:
        return stratified_holdout(y if classes else np.zeros(len(y), int), share, rng)
    except InvalidInputError:
        # The client has too few rows to spare one; the docstring says what becomes of it.
        return None


def as_optimizer(given: str | Mapping[str, Any] | Optimizer) -> Optimizer:
    """``"adam"``, ``{"name": "sgd", "lr": 0.1}``, a description, or a maker of torch optimizers.

    Raises:
        InvalidInputError: no such optimizer or parameter.
    """
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping):
        return given
    wanted = dict(given)
    name = str(wanted.pop("name", "")).casefold()
    if name not in _OPTIMIZERS:
        near = nearest(name, _OPTIMIZERS, most=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose {', '.join(_OPTIMIZERS)}."
        raise InvalidInputError(f"There is no optimizer {name!r}; {hint}", field="optimizer")
    if name == "sgd":
        wanted.setdefault("lr", 0.1)
    if "betas" in wanted:
        wanted["betas"] = tuple(wanted["betas"])
    try:
        return _OPTIMIZERS[name](**wanted)
    except TypeError:
        known = ", ".join(_OPTIMIZERS[name].__dataclass_fields__)
        raise InvalidInputError(
            f"{name} has no such parameters as {', '.join(wanted)}; it has {known}.",
            field="optimizer",
        ) from None


def optimizer_record(optimizer: Optimizer) -> dict[str, Any] | None:
    """What ``as_optimizer`` reads back; None of a function, which no record can hold."""
    for name, kind in _OPTIMIZERS.items():
        if type(optimizer) is kind:
            found = asdict(optimizer)
            return {"name": name, **found}
    return None


def check_fit(task: Task, clients: Sequence[Client], hosted: Hosted) -> None:
    """Refuse what cannot train, before anything does.

    Raises:
        InvalidInputError: too few clients for the strategy, SCAFFOLD without a learning rate,
            rows that the module does not take, or labels that its last layer has no place for.
    """
    if hosted.strategy.least_updates > hosted.clients:
        raise InvalidInputError(
            f"The strategy {hosted.strategy} needs {hosted.strategy.least_updates} updates in a "
            f"round, and there are {hosted.clients} clients; give more of them, or choose another "
            "strategy.",
            field="strategy",
        )
    if isinstance(hosted.strategy, Scaffold) and task.learning_rate is None:
        raise InvalidInputError(
            "SCAFFOLD has to know the learning rate, which a function does not tell; describe "
            "the optimizer, for example optimizer={'name': 'sgd', 'lr': 0.1}.",
            field="optimizer",
        )
    width = _outputs(task, clients[0])
    if width is None:
        return
    for place, client in enumerate(clients):
        y = np.asarray(client.y)
        if y.ndim != 1 or y.dtype.kind not in "iub":
            continue
        most, least = int(y.max()), int(y.min())
        if least < 0 or most >= max(width, 2):
            odd = least if least < 0 else most
            raise InvalidInputError(
                f"Client {place} has the label {odd}, but the model's last layer has {width} "
                f"output{'s' * (width != 1)}, so labels are 0 to {max(width, 2) - 1}; give it "
                f"{max(most + 1, 2)} outputs, or number the classes from 0.",
                field="model",
            )


def _outputs(task: Task, client: Client) -> int | None:
    """Outputs (n, k) of the module: k; None where they have another form."""
    import torch

    from truststram_lab.learning.virtual.task import rows_of

    module = task.new_module().eval()
    x = rows_of(client.x[:1], task.dtype, "cpu")
    try:
        with torch.no_grad():
            found = module(x)
    except (RuntimeError, IndexError, ValueError) as error:
        raise InvalidInputError(
            f"The model does not take rows of shape {tuple(x.shape[1:])}: "
            f"{str(error).splitlines()[0]}; make its first layer fit the rows.",
            field="model",
        ) from error
    return int(found.shape[1]) if found.ndim == 2 else None
