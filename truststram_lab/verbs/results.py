"""What verbs return: plain data with a card, shown by any front end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from truststram_lab.config import Decided
from truststram_lab.exceptions import InvalidInputError
from truststram_lab.render import (
    Card,
    deployment_card,
    deployments_card,
    doctor_card,
    identity_card,
    model_card,
    models_card,
    notice_card,
    prediction_card,
    prediction_log_card,
    replay_card,
    runs_card,
    sandbox_card,
    sent_card,
    where_card,
)
from truststram_lab.schemas.accounts import Identity
from truststram_lab.schemas.departures import Departure
from truststram_lab.schemas.federation import Run
from truststram_lab.schemas.registry import Model, ModelVersion
from truststram_lab.schemas.replays import RoundReplay
from truststram_lab.schemas.serving import (
    Deployment,
    Explanation,
    Prediction,
    PredictionRecord,
    Traffic,
)

__all__ = [
    "Answer",
    "DeploymentDetail",
    "DeploymentList",
    "DoctorReport",
    "ModelDetail",
    "ModelList",
    "Notice",
    "PredictionLogPage",
    "Predictions",
    "RunList",
    "RunReplay",
    "RunSent",
    "SandboxStatus",
    "SignedIn",
    "Where",
]


class Answer(ABC):
    """Base of all results: a card, and the mimebundle made of it."""

    @abstractmethod
    def card(self) -> Card:
        """The result as static HTML, text and data."""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, object]:
        return self.card().bundle()

    def __repr__(self) -> str:
        return self.card().text


@dataclass(frozen=True, repr=False)
class SignedIn(Answer):
    """Who is signed in, and where."""

    identity: Identity
    url: str
    notices: tuple[str, ...] = ()

    def card(self) -> Card:
        return identity_card(self.identity, url=self.url, notices=self.notices)


@dataclass(frozen=True, repr=False)
class Notice(Answer):
    """One sentence."""

    text: str

    def card(self) -> Card:
        return notice_card(self.text)


@dataclass(frozen=True, repr=False)
class SandboxStatus(Answer):
    """The sandbox's state: ``running``, and facts that hold no secret."""

    running: bool
    facts: dict[str, str]

    def card(self) -> Card:
        return sandbox_card(running=self.running, facts=self.facts)


@dataclass(frozen=True, repr=False)
class Where(Answer):
    """Where am I, what can I do, and which variable decided what."""

    identity: Identity | None
    facts: dict[str, str]
    next_steps: tuple[tuple[str, str], ...]
    settings: tuple[Decided, ...] = ()

    def card(self) -> Card:
        return where_card(
            self.identity, facts=self.facts, next_steps=self.next_steps, settings=self.settings
        )


@dataclass(frozen=True, repr=False)
class DoctorReport(Answer):
    """An environment report, safe to paste: no names, paths or secrets."""

    sections: dict[str, dict[str, str]]

    def card(self) -> Card:
        return doctor_card(self.sections)


@dataclass(frozen=True, repr=False)
class ModelList(Answer, Sequence[Model]):
    """The models of the organisation, newest first."""

    items: list[Model]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def card(self) -> Card:
        return models_card(self.items)


@dataclass(frozen=True, repr=False)
class ModelDetail(Answer):
    """One model and its versions, newest first; ``chosen`` is the one that was asked for."""

    model: Model
    versions: list[ModelVersion]
    chosen: ModelVersion | None = None
    said: str = ""

    def card(self) -> Card:
        return model_card(self.model, self.versions, chosen=self.chosen, said=self.said)


@dataclass(frozen=True, repr=False)
class DeploymentList(Answer, Sequence[Deployment]):
    """What is served, newest first."""

    items: list[Deployment]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def card(self) -> Card:
        return deployments_card(self.items)


@dataclass(frozen=True, repr=False)
class DeploymentDetail(Answer):
    """One deployment, what it was asked in the last hour, and the newest entries of its log."""

    deployment: Deployment
    traffic: Traffic | None = None
    entries: list[PredictionRecord] = field(default_factory=list)
    said: str = ""

    @property
    def endpoint_url(self) -> str:
        """Where programs ask it."""
        return self.deployment.endpoint_url

    def card(self) -> Card:
        return deployment_card(self.deployment, self.traffic, self.entries, said=self.said)


@dataclass(frozen=True, repr=False)
class PredictionLogPage(Answer, Sequence[PredictionRecord]):
    """Entries of the log of predictions, newest first."""

    items: list[PredictionRecord]
    name: str | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def to_frame(self) -> Any:
        """A pandas DataFrame, one row an entry."""
        import pandas as pd

        frame = pd.DataFrame([entry.model_dump() for entry in self.items])
        if len(frame):
            frame["created_at"] = pd.to_datetime(frame["created_at"])
        return frame

    def card(self) -> Card:
        return prediction_log_card(self.items, name=self.name)


@dataclass(frozen=True, repr=False)
class RunList(Answer, Sequence[Run]):
    """Runs, newest first."""

    items: list[Run]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def card(self) -> Card:
        return runs_card(self.items)


@dataclass(frozen=True, repr=False)
class RunReplay(Answer, Sequence[RoundReplay]):
    """A run's rounds, computed again from the stored files; ``equal`` if all came out the same."""

    run: Run
    items: list[RoundReplay]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    @property
    def equal(self) -> bool:
        """Whether every result is the same file, bit for bit."""
        return all(each.equal for each in self.items)

    def card(self) -> Card:
        return replay_card(self.run, self.items)


@dataclass(frozen=True, repr=False)
class RunSent(Answer, Sequence[Departure]):
    """Every body that left this computer in a run, oldest first."""

    run: Run
    items: list[Departure]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def to_frame(self) -> Any:
        """A DataFrame of one line an array (or a body without arrays), with sizes in bytes."""
        import pandas as pd

        lines: list[dict[str, Any]] = []
        for each in self.items:
            told = {
                "site": each.site or "owner",
                "round": each.round,
                "kind": each.kind,
                "body_bytes": each.body_bytes,
            }
            arrays: list[dict[str, Any]] = [array.model_dump() for array in each.arrays]
            lines += [{**told, **array} for array in arrays or [{}]]
        return pd.DataFrame(lines)

    def card(self) -> Card:
        return sent_card(self.run, self.items)


@dataclass(frozen=True, repr=False)
class Predictions(Answer, Sequence[Prediction]):
    """One prediction a row. With one row, its fields are attributes of this object, too."""

    items: list[Prediction]
    truth: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.items)

    @property
    def only(self) -> Prediction:
        """The prediction, when there is exactly one."""
        if len(self.items) != 1:
            raise InvalidInputError(
                f"There are {len(self.items)} predictions; take one by its index, such as [0]."
            )
        return self.items[0]

    @property
    def label(self) -> str:
        """The predicted label of the only row."""
        return self.only.label

    @property
    def result(self) -> str | float:
        """The same as ``label``; of a regression the value."""
        return self.only.result

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability by label, of the only row."""
        return self.only.probabilities

    @property
    def confidence(self) -> float | None:
        """Probability of ``confidence_class``, of the only row; None for a regression."""
        return self.only.confidence

    @property
    def explanation(self) -> Explanation | None:
        """The explanation of the only row, if it was asked for."""
        return self.only.explanation

    def to_frame(self) -> Any:
        """A DataFrame: the label, then one probability column a class; or the value."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"label": p.label, **p.probabilities} if p.value is None else {"value": p.value}
                for p in self.items
            ],
        )

    def card(self) -> Card:
        return prediction_card(self.items, truth=self.truth)
