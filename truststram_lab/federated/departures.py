"""The owner's record of what left this kernel, written before it leaves.

    TRUSTSTRAM_HOME/sent/<run>.jsonl      one line a body

What a body holds is read back from its bytes, not from what was meant to be sent.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from truststram_lab import config
from truststram_lab.learning import encodings, weights
from truststram_lab.learning.encodings import Compact, size_bytes
from truststram_lab.learning.weights import State
from truststram_lab.schemas.base import Request
from truststram_lab.schemas.departures import Departure, SentArray
from truststram_lab.schemas.filters import FilterStep

from .participation.files import folder_name, private_folder

__all__ = ["Departures", "arrays_of"]

_FILTERS = "filters"


class Departures:
    """What left in one run; safe from several threads.

    Args:
        run_id: of the platform.
        folder: ``TRUSTSTRAM_HOME/sent`` by default.
    """

    def __init__(self, run_id: str, folder: Path | None = None) -> None:
        self._path = (folder or config.home() / "sent") / f"{folder_name(run_id)}.jsonl"
        self._lock = threading.Lock()

    def entries(self) -> list[Departure]:
        """Everything, oldest first; empty where this computer sent nothing of the run."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for place, line in enumerate(lines):
            try:
                found.append(Departure.model_validate_json(line))
            except ValidationError:
                # The last line of a process that died while writing it: nothing left after it.
                if place + 1 < len(lines):
                    raise
        return found

    def update(
        self, site: str, kind: str, number: int, body: bytes, like: Mapping[str, np.ndarray]
    ) -> None:
        """A site's file of arrays; ``like`` are the arrays that the platform expects in it."""
        _, texts = weights.decode(body)
        texts.pop(encodings.writing.DESCRIPTION, None)
        steps = [FilterStep.model_validate(step) for step in json.loads(texts.pop(_FILTERS, "[]"))]
        self._note(
            site=site,
            kind="statistics" if kind == "statistics" else "update",
            round=number,
            body_bytes=len(body),
            arrays=arrays_of(body, like),
            texts=texts,
            steps=steps,
            sha256=weights.sha256_hex(body),
        )

    def weights(self, body: bytes, like: State) -> None:
        """The owner's initial weights."""
        self._note(
            site=None,
            kind="initial weights",
            body_bytes=len(body),
            arrays=arrays_of(body, like),
            sha256=weights.sha256_hex(body),
        )

    def fields(self, site: str | None, kind: str, body: Request | Mapping[str, Any]) -> None:
        """A body of JSON, by its fields: a plan, a registration, a report."""
        found = body.model_dump(mode="json") if isinstance(body, Request) else dict(body)
        text = json.dumps(found, separators=(",", ":"), ensure_ascii=False)
        sizes = {name: _size_words(value) for name, value in found.items()}
        self._note(site=site, kind=kind, body_bytes=len(text.encode()), texts=sizes)

    def _note(self, **values: Any) -> None:
        line = Departure(at=datetime.now(UTC).isoformat(timespec="milliseconds"), **values)
        with self._lock:
            private_folder(self._path.parent)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(line.model_dump_json().encode() + b"\n")


def arrays_of(body: bytes, like: Mapping[str, np.ndarray]) -> list[SentArray]:
    """What the arrays of a body are, and the bytes that each takes in it.

    Args:
        body: what ``learning.encodings.encode`` or ``learning.weights.encode`` wrote.
        like: names, shapes and types that are expected in it.
    """
    parts, _ = encodings.unpack(body, like)
    return [_array(name, part) for name, part in parts.items()]


def _array(name: str, part: np.ndarray | Compact) -> SentArray:
    form = "dense"
    if isinstance(part, Compact):
        sparse, quantised = part.indices is not None, part.levels is not None
        form = " ".join(["sparse"] * sparse + ["quantised"] * quantised) or "dense"
    return SentArray.model_validate(
        {
            "name": name,
            "shape": list(part.shape),
            "form": form,
            "coordinates": part.size,
            "kept": part.size if isinstance(part, np.ndarray) else part.kept,
            "bytes_before": part.size * part.dtype.itemsize,
            "bytes_after": size_bytes(part),
        }
    )


def _size_words(value: Any) -> str:
    """A small value itself; of a large one, how many bytes it takes."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{len(text.encode()):,} bytes"
