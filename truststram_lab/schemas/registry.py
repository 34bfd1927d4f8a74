"""Models, their immutable versions, and how a network is built."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from .base import Request, Schema
from .tables import Signature, Statistics

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,99}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
#: semantic versions fit; nothing that a reference would take apart does
LABEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class DenseLayer(Schema):
    """``y = activation(x @ weight.T + bias)``; weight has shape (units, inputs)."""

    type: Literal["dense"] = "dense"
    units: int = Field(ge=1, le=65_536)
    activation: Literal["identity", "relu", "tanh", "sigmoid"] = "identity"


class DropoutLayer(Schema):
    """Zeroes a share ``rate`` of its inputs in training; does nothing in prediction."""

    type: Literal["dropout"] = "dropout"
    rate: float = Field(ge=0, lt=1)


Layer = Annotated[DenseLayer | DropoutLayer, Field(discriminator="type")]


class Architecture(Schema):
    """A feed-forward network that ends in logits.

    Weights are named as torch names a Sequential's: ``layers.0.weight``, ``layers.0.bias``,
    where the number is the layer's place in ``layers`` (dropout layers have none).
    """

    inputs: int = Field(ge=1, le=1_000_000)
    layers: list[Layer] = Field(min_length=1, max_length=100)


class Lineage(Schema):
    """Where a version came from."""

    federation: str | None = None
    run: str | None = None
    rounds: int | None = None
    data_sha256: str | None = None
    code_version: str | None = None


class CreateModel(Request):
    """A new line of versions.

    ``type`` is what it predicts; ``version`` the label of its first uploaded version.
    """

    name: Name
    description: str = Field(default="", max_length=10_000)
    framework: str = Field(default="pytorch", max_length=255)
    type: Literal["classification", "regression"] | None = None
    version: Annotated[str, Field(pattern=LABEL_PATTERN)] | None = None


class RegisterArtifact(Request):
    """An uploaded file that is to become the next version: an estimator of scikit-learn's.

    Written by skops, ``MLModel.save``, pickle or joblib; the last two are read by a process of
    its own with a list of what may be in them, and kept as skops writes them.
    """

    sha256: Sha256
    label: Annotated[str, Field(pattern=LABEL_PATTERN)] | None = None


class Upload(Schema):
    """A file on its way: ``offset`` bytes are stored durably; once all are, it is checked."""

    sha256: str
    size_bytes: int
    offset: int
    complete: bool


class SetAlias(Request):
    """Which version an alias is to name: a number, a label, ``latest`` or ``deployed``."""

    version: int | str = "latest"

    @field_validator("version", mode="before")
    @classmethod
    def _names_one(cls, value: object) -> object:
        # Before the union is tried: its own complaint would name the types, not the way out.
        number = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9
        if number or (isinstance(value, str) and 0 < len(value) <= 255):
            return value
        raise ValueError("write a version's number or label, 'latest' or 'deployed'")


class Alias(Schema):
    """A name that moves: ``model@alias`` is ``version`` since ``moved_at``, by ``moved_by``."""

    alias: str
    version: int
    moved_at: str
    moved_by: str


class Model(Schema):
    """A named line of versions; its aliases in alphabetical order."""

    id: str
    name: str
    description: str
    framework: str
    version_count: int
    latest_version: int | None
    deployed_version: int | None
    aliases: list[Alias] = Field(default_factory=list)
    type: str | None = None
    created_at: str


class CreateVersion(Request):
    """A version to register; its blobs must have been uploaded before.

    ``safetensors`` are the weights of a network, which ``architecture`` and ``statistics``
    describe; ``skops`` is an estimator, which has all of it in its file.
    """

    label: Annotated[str, Field(pattern=LABEL_PATTERN)] | None = None
    format: Literal["safetensors", "skops"] = "safetensors"
    weights_sha256: Sha256
    architecture: Architecture | None = None
    signature: Signature
    statistics: Statistics | None = None
    lineage: Lineage = Lineage()
    metrics: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_described(self) -> CreateVersion:
        for name in ("architecture", "statistics"):
            given = getattr(self, name) is not None
            if given != (self.format == "safetensors"):
                word = "needs" if self.format == "safetensors" else "takes no"
                raise ValueError(f"a version of format {self.format!r} {word} {name}")
        return self


class ModelVersion(Schema):
    """An immutable version: weights by content, how to build them, what they take in."""

    id: str
    model: str
    sequence: int
    label: str
    format: str
    weights_sha256: str
    size_bytes: int
    architecture: Architecture | None = None
    signature: Signature
    statistics: Statistics | None = None
    lineage: Lineage
    metrics: dict[str, float]
    created_at: str
