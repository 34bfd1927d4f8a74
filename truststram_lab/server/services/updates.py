"""A site's update: every check before it is kept, and reading it again for the sum."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from truststram_lab.exceptions import UpdateRejectedError
from truststram_lab.schemas.federation import CreateRun
from truststram_lab.schemas.filters import FilterStep, GaussianNoise, NormValidation, Quantization
from truststram_lab.schemas.privacy import ClientPlan, LocalPlan
from truststram_lab.schemas.strategies import AnyStrategy
from truststram_lab.server.stores.blobs import BlobStore

from .networks import check_weights

if TYPE_CHECKING:
    from truststram_lab.learning.strategies import Updates
    from truststram_lab.learning.weights import State

__all__ = ["Checked", "check_update", "read_metrics", "stored_updates"]

_METRICS_LIMIT = 100
#: What a file may be larger than its arrays: header, description, metadata.
_SLACK_BYTES = 8 * 2**20
_AUDIT_CHARACTERS = 100_000
#: Norms are computed twice, in different orders.
_NORM_TOLERANCE = 1e-4

_STEPS = TypeAdapter(list[FilterStep])


@dataclass(frozen=True)
class Checked:
    """What an update says of itself; ``audit`` is the site's record of its filters."""

    samples: int
    metrics: dict[str, float] = field(default_factory=dict)
    audit: list[dict[str, Any]] | None = None


def check_update(
    kind: str, plan: CreateRun, content: memoryview, expected: State | None, reported: int | None
) -> Checked:
    """Refuse an update that cannot count.

    Args:
        kind: of the round.
        content: the whole file; hostile until it was checked.
        expected: names, shapes and types, for a training round.
        reported: rows that the site had in the statistics round, None if there was none.

    Raises:
        UpdateRejectedError: with the name of what is wrong.
    """
    from truststram_lab.learning import weights

    if kind == "training":
        assert expected is not None
        return _training(plan, content, expected, reported)
    state, metadata = weights.decode(content)
    metrics = read_metrics(metadata.get("metrics", "{}"))
    if kind == "statistics":
        from truststram_lab.learning.statistics import check_moments

        assert plan.signature is not None
        check_moments(state, plan.signature, plan.min_site_rows)
        return Checked(int(state["rows"][0]), metrics)
    samples = _sample_count(metadata.get("sample_count"), reported)
    if kind == "evaluation":
        return _evaluation(state, samples, metrics)
    _initial(plan, state, content)
    return Checked(samples, metrics)


def _training(
    plan: CreateRun, content: memoryview, expected: State, reported: int | None
) -> Checked:
    from truststram_lab.learning import encodings

    most = sum(array.nbytes for array in expected.values()) + _SLACK_BYTES
    if len(content) > most:
        raise UpdateRejectedError(
            f"The update has {len(content)} bytes, and one of this model has at most {most}; send "
            "the model's own arrays."
        )
    parts, metadata = encodings.unpack(content, expected)
    metrics = read_metrics(metadata.get("metrics", "{}"))
    samples = _sample_count(metadata.get("sample_count"), reported)
    # A host's update is the mean of updates that were validated one by one, and then a step.
    limit = None if plan.hosted is not None else _norm_limit(plan)
    if limit is not None:
        _check_norm(parts, limit)
    return Checked(samples, metrics, _audit(metadata.get("filters")))


def _evaluation(state: Mapping[str, Any], samples: int, metrics: dict[str, float]) -> Checked:
    if state:
        raise UpdateRejectedError(
            f"An evaluation sends metrics only, and this one has array {next(iter(state))!r}; "
            "leave the arrays out.",
            field=next(iter(state)),
        )
    if "loss" not in metrics:
        raise UpdateRejectedError(
            "The evaluation reports no loss; send metrics with loss, and accuracy if there is one.",
            field="metrics",
        )
    return Checked(samples, metrics)


def _initial(plan: CreateRun, state: State, content: memoryview) -> None:
    from truststram_lab.learning import weights
    from truststram_lab.learning.privacy.mechanisms import global_norm

    if not state:
        raise UpdateRejectedError("The file has no parameters; send those to begin with.")
    weights.check_update(state, state)
    if isinstance(plan.privacy, ClientPlan | LocalPlan):
        global_norm(state)
    if plan.architecture is not None:
        check_weights(bytes(content), plan.architecture, "parameters")


def _norm_limit(plan: CreateRun) -> float | None:
    """The limit that still holds for what arrives: nothing after it may raise a norm."""
    limit: float | None = None
    for one in plan.filters:
        if isinstance(one, NormValidation):
            limit = one.max_norm if limit is None else min(limit, one.max_norm)
        elif isinstance(one, GaussianNoise | Quantization):
            limit = None
    return limit


def _check_norm(parts: Mapping[str, Any], limit: float) -> None:
    from truststram_lab.learning.encodings import Compact
    from truststram_lab.learning.privacy.mechanisms import global_norm

    dense = {n: a.dense() if isinstance(a, Compact) else a for n, a in parts.items()}
    norm = global_norm({name: array for name, array in dense.items() if array.dtype.kind == "f"})
    if norm > limit * (1 + _NORM_TOLERANCE):
        raise UpdateRejectedError(
            f"The update's norm is {norm:.6g}, and the run takes at most {limit:g}; train with a "
            "lower learning rate, or clip the update.",
            field="norm",
        )


def _sample_count(text: str | None, reported: int | None) -> int:
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 15 and int(text)):
        raise UpdateRejectedError(
            f"The file's metadata has sample_count {text!r}; it must be the number of rows "
            "trained on, 1 or more.",
            field="sample_count",
        )
    if reported is not None and int(text) > reported:
        raise UpdateRejectedError(
            f"sample_count {text} is more than the {reported} rows that this site reported "
            "in the statistics round; send the number of rows trained on.",
            field="sample_count",
        )
    return int(text)


def read_metrics(text: str) -> dict[str, float]:
    """The metrics in a file's metadata: a JSON object of finite numbers.

    Raises:
        UpdateRejectedError: it is something else.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, Mapping) or len(found) > _METRICS_LIMIT:
        found = None
    if found is None or not all(
        isinstance(name, str)
        and len(name) <= _METRICS_LIMIT
        and isinstance(value, int | float)
        and abs(value) < 2**1023
        and math.isfinite(value)
        for name, value in found.items()
    ):
        raise UpdateRejectedError(
            f"The file's metadata has no usable metrics; send a JSON object of at most "
            f"{_METRICS_LIMIT} finite numbers, or leave it out.",
            field="metrics",
        )
    return {name: float(value) for name, value in found.items()}


def _audit(text: str | None) -> list[dict[str, Any]] | None:
    if text is None:
        return None
    try:
        if len(text) > _AUDIT_CHARACTERS:
            raise ValueError("it is too long")
        steps = _STEPS.validate_json(text)
    except (ValueError, ValidationError) as error:
        raise UpdateRejectedError(
            "The file's metadata has no usable record of its filters; send what "
            "truststram_lab.learning.filters writes, or leave it out.",
            field="filters",
        ) from error
    return [step.model_dump(mode="json") for step in steps]


def stored_updates(
    blobs: BlobStore,
    files: Sequence[tuple[str, str]],
    strategy: AnyStrategy,
    expected: State,
) -> Updates:
    """The updates for the sum, of which only blocks are held in memory.

    Args:
        files: organisation and SHA-256 of each, in the order of the sum.
    """
    from truststram_lab.learning import encodings
    from truststram_lab.learning.strategies import DecodedUpdates, StoredUpdates

    # Plain ones were checked when they came, and are read where they lie.
    if not any(_is_packed(blobs.map(*file)) for file in files):
        return StoredUpdates([blobs.path(*file) for file in files])

    def read(organisation_id: str, sha256: str) -> State:
        content = blobs.map(organisation_id, sha256)
        return encodings.decode(content, expected)[0]

    readers = [partial(read, *file) for file in files]
    if not strategy.sees_single_updates:
        return DecodedUpdates(readers)
    # A robust rule goes through all of them block by block: the packed ones are unpacked once,
    # into files that go with the object that reads them.
    return _Unpacked(blobs, files, readers)


def _is_packed(content: memoryview) -> bool:
    from truststram_lab.learning import weights
    from truststram_lab.learning.encodings.writing import PACKED

    return PACKED in weights.decode(content)[0]


class _Unpacked:
    """Updates of which some were packed, read from plain files in a folder of their own."""

    def __init__(self, blobs: BlobStore, files: Sequence[tuple[str, str]], readers: Any) -> None:
        from truststram_lab.learning import weights
        from truststram_lab.learning.strategies import StoredUpdates

        self._folder = tempfile.TemporaryDirectory(prefix="truststram-round-")
        paths: list[Path] = []
        for place, (file, read) in enumerate(zip(files, readers, strict=True)):
            if _is_packed(blobs.map(*file)):
                path = Path(self._folder.name) / str(place)
                path.write_bytes(weights.encode(read()))
                paths.append(path)
            else:
                paths.append(blobs.path(*file))
        self._updates = StoredUpdates(paths)

    def __len__(self) -> int:
        return len(self._updates)

    def layout(self, place: int) -> Mapping[str, Any]:
        return self._updates.layout(place)

    def block(self, place: int, name: str, part: slice) -> Any:
        return self._updates.block(place, name, part)
