"""What a person asked of the host of a simulation, and what the plan records of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.federated.preparation import MOST_PARTICIPANTS, Prepared
from truststram_lab.learning.network import expected_shapes
from truststram_lab.learning.personal import split_head
from truststram_lab.learning.statistics import local_moments, merge_moments
from truststram_lab.preprocessing import TableEncoder
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.personal import AnyPersonal, FedPer, parse_personal
from truststram_lab.schemas.privacy import PrivacyPlan, RecordPlan
from truststram_lab.schemas.registry import Architecture
from truststram_lab.schemas.simulation import Failures, Hosted, Hostile, parse_hostile
from truststram_lab.schemas.strategies import AnyStrategy, Scaffold
from truststram_lab.schemas.tables import Statistics

from .failures import flipped, hostile_clients

if TYPE_CHECKING:
    from truststram_lab.learning.virtual import Client, Trainer

__all__ = ["HostWish", "check_personal", "clients_of", "trainer_of"]


@dataclass(frozen=True)
class HostWish:
    """Options that only a host has.

    Args:
        fraction: share of the clients that each round asks, in (0, 1].
        drop: chance of a client to send nothing in a round, in [0, 1).
        stragglers: chance of a client to do part of its epochs, in [0, 1].
        hostile: text or schema of ``schemas.simulation``.
        personal: the clients' own models, as ``schemas.personal`` spells them.
    """

    fraction: float | None = None
    drop: float | None = None
    stragglers: float | None = None
    hostile: str | Hostile | None = None
    personal: str | AnyPersonal | None = None

    @property
    def share(self) -> float:
        """Of the clients, those that a round asks."""
        return 1.0 if self.fraction is None else self.fraction

    def __post_init__(self) -> None:
        limits = {"fraction": (0.0, 1.0), "drop": (0.0, 1.0), "stragglers": (0.0, 1.0)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            allowed = value is None or (low <= value <= high)
            if (name == "fraction" and value == 0) or (name == "drop" and value == 1):
                allowed = False
            if not allowed:
                raise InvalidInputError(
                    f"--{name} {value:g} is no such share; give a number between 0 and 1, for "
                    f"example --{name} 0.1.",
                    field=name,
                )

    def needs_host(self, clients: int) -> bool:
        """Whether a host trains them: there are many, or something is asked that only it has."""
        asked = (self.fraction, self.drop, self.stragglers, self.hostile, self.personal)
        return clients > MOST_PARTICIPANTS or any(value is not None for value in asked)

    def failures(self) -> Failures:
        """What goes wrong in the rounds."""
        hostile = parse_hostile(self.hostile) if isinstance(self.hostile, str) else self.hostile
        return Failures(drop=self.drop or 0.0, stragglers=self.stragglers or 0.0, hostile=hostile)

    def planned(
        self,
        prepared: Prepared,
        strategy: AnyStrategy,
        architecture: Architecture,
        local: LocalTraining,
        privacy: PrivacyPlan | None = None,
    ) -> Hosted:
        """The plan's record, with the backend that a short trial found.

        Raises:
            InvalidInputError: the strategy needs more clients than a round has, or does not go
                with the clients' own models.
        """
        personal = None if self.personal is None else parse_personal(self.personal)
        shapes = expected_shapes(architecture)
        like = {name: np.empty(shape) for name, shape in shapes.items()}
        check_personal(personal, strategy, privacy, like)
        hosted = Hosted(
            clients=len(prepared.parts),
            strategy=strategy,
            fraction=self.share,
            failures=self.failures(),
            personal=personal,
        )
        if strategy.least_updates > hosted.clients:
            raise InvalidInputError(
                f"The strategy {strategy} needs {strategy.least_updates} updates in a round, and "
                f"there are {hosted.clients} clients; choose more of them, or another strategy.",
                field="strategy",
            )
        moments = local_moments(prepared.table, prepared.signature)
        clients = clients_of(prepared, merge_moments([moments], prepared.signature))
        chosen = trainer_of(clients, architecture, local)
        return hosted.model_copy(
            update={"backend": chosen.backend, "chunk": chosen.chunk, "why": chosen.why}
        )


def check_personal(
    personal: AnyPersonal | None,
    strategy: AnyStrategy,
    privacy: PrivacyPlan | None,
    like: Mapping[str, np.ndarray],
) -> None:
    """Refuse models of the clients' own that the run's arithmetic has no place for.

    Raises:
        InvalidInputError: FedPer beside SCAFFOLD or record-level privacy, or a head that the
            model does not have.
    """
    if not isinstance(personal, FedPer):
        return
    if isinstance(strategy, Scaffold):
        raise InvalidInputError(
            "SCAFFOLD corrects whole models, and FedPer shares only a part; choose ditto, or "
            "another strategy.",
            field="personal",
        )
    if isinstance(privacy, RecordPlan):
        raise InvalidInputError(
            "Record-level privacy trains the shared model as a whole, and FedPer keeps some of "
            "its layers at the clients; choose ditto, or --dp-unit client.",
            field="personal",
        )
    split_head(like, personal.head)


def clients_of(
    prepared: Prepared, statistics: Statistics, hosted: Hosted | None = None
) -> list[Client]:
    """Every client's encoded rows; those that flip labels train on flipped ones."""
    from truststram_lab.learning.virtual import Client

    encoder = TableEncoder(prepared.signature, statistics)
    x = np.ascontiguousarray(encoder.encode_frame(prepared.table))
    hostile = None if hosted is None else hosted.failures.hostile
    turned: frozenset[int] = frozenset()
    if hosted is not None and hostile is not None and hostile.attack == "label_flip":
        turned = hostile_clients(hosted, prepared.seed)
    other = flipped(prepared.codes, len(prepared.signature.classes))
    return [
        Client(x[part], (other if place in turned else prepared.codes)[part])
        for place, part in enumerate(prepared.parts.values())
    ]


def trainer_of(
    clients: list[Client],
    architecture: Architecture,
    local: LocalTraining,
    hosted: Hosted | None = None,
) -> Trainer:
    """The trainer of a plan; without one yet, the faster in a short trial."""
    from truststram_lab.learning.virtual import Task, choose

    task = Task.from_architecture(architecture, local)
    if hosted is None:
        return choose(task, clients)
    if hosted.backend == "loop":
        return choose(task, clients, "loop")
    return choose(task, clients, "vectorized", hosted.chunk)
