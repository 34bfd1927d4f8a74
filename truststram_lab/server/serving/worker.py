"""The process that answers predictions: numpy alone, one request message at a time.

Messages are JSON both ways, so that the platform never unpickles what a worker wrote.
The process ends when its pipe does: a killed platform leaves nothing behind.

==========  ============================================  ==================================
operation   request                                       answer
==========  ============================================  ==================================
load        ``version``: id, label, weights, ...          ``{"loaded": id}``
predict     ``id``, ``requests``: rows, explain, class    ``{"answers": [...]}`` in order, or
                                                          ``{"unknown": id}``: load it first
forget      ``id``                                        ``{"forgotten": id}``
inspect     nothing                                       ``{"modules": [...], "versions"}``
==========  ============================================  ==================================

An answer, or a whole reply, may be ``{"error": problem, "trace": text or null}`` instead.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import traceback
from collections import OrderedDict
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from truststram_lab.exceptions import InvalidInputError, PlatformError, TrustStramException
from truststram_lab.explainability import explain_rows
from truststram_lab.learning.network import Network
from truststram_lab.learning.weights import decode
from truststram_lab.preprocessing import TableEncoder
from truststram_lab.schemas.registry import Architecture
from truststram_lab.schemas.tables import Signature, Statistics

__all__ = ["KEPT_VERSIONS", "Worker", "main"]

#: Versions kept in memory; the one unused for longest goes first.
KEPT_VERSIONS = 32


def main(pipe: Connection) -> None:
    """Answer until the platform closes its end."""
    # Ctrl-C in the platform's terminal reaches its whole process group; the pipe ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker()
    try:
        pipe.send_bytes(b'{"ready": true}')
        while True:
            request = json.loads(pipe.recv_bytes())
            pipe.send_bytes(json.dumps(worker.reply(request)).encode())
    except (EOFError, OSError):
        return


@dataclass(frozen=True)
class _Loaded:
    signature: Signature
    statistics: Statistics
    encoder: TableEncoder
    network: Network


class Worker:
    """The versions in memory and the answers they give."""

    def __init__(self) -> None:
        self._versions: OrderedDict[str, _Loaded] = OrderedDict()

    def reply(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one message; a failure is an answer too."""
        try:
            match request["op"]:
                case "predict":
                    return self._predict(request["id"], request["requests"])
                case "load":
                    return self._load(request["version"])
                case "forget":
                    self._versions.pop(request["id"], None)
                    return {"forgotten": request["id"]}
                case _:
                    return {"modules": sorted(sys.modules), "versions": list(self._versions)}
        except Exception as error:  # noqa: BLE001 - reported to the platform, which logs it
            return _failure(error)

    def _load(self, described: dict[str, Any]) -> dict[str, Any]:
        loaded = _open(described)
        width = loaded.encoder.width
        outputs = loaded.network.probabilities(np.zeros((1, width)))
        if outputs.shape != (1, len(loaded.signature.classes)) or not np.isfinite(outputs).all():
            raise PlatformError(
                f"The stored network of {described['label']} does not answer with one finite "
                "probability a class; train it again."
            )
        self._versions[described["id"]] = loaded
        while len(self._versions) > KEPT_VERSIONS:
            self._versions.popitem(last=False)
        return {"loaded": described["id"]}

    def _predict(self, version_id: str, requests: list[dict[str, Any]]) -> dict[str, Any]:
        loaded = self._versions.get(version_id)
        if loaded is None:
            return {"unknown": version_id}
        self._versions.move_to_end(version_id)
        try:
            return {"answers": _answers(loaded, requests)}
        except Exception as error:  # noqa: BLE001 - one bad request must not spoil the others
            if len(requests) == 1:
                return {"answers": [_failure(error)]}
        return {
            "answers": [self._predict(version_id, [request])["answers"][0] for request in requests]
        }


def _open(described: dict[str, Any]) -> _Loaded:
    label, expected = described["label"], described["weights_sha256"]
    try:
        body = Path(described["weights"]).read_bytes()
    except OSError as error:
        raise PlatformError(
            f"The stored weights of {label} cannot be read ({error.strerror}); restore the file "
            f"with SHA-256 {expected} or train again."
        ) from error
    found = hashlib.sha256(body).hexdigest()
    if found != expected:
        raise PlatformError(
            f"The stored weights of {label} are damaged: their SHA-256 is {found}, not "
            f"{expected}; restore the file or train again."
        )
    signature = Signature.model_validate(described["signature"])
    statistics = Statistics.model_validate(described["statistics"])
    try:
        state, _ = decode(body)
        architecture = Architecture.model_validate(described["architecture"])
        network = Network(architecture, state, signature)
    except InvalidInputError as error:
        raise PlatformError(
            f"The stored weights of {label} do not fit its architecture: {error.message}"
        ) from error
    return _Loaded(signature, statistics, TableEncoder(signature, statistics), network)


def _answers(loaded: _Loaded, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One pass through the network for all rows; explanations only where asked for."""
    rows = [row for request in requests for row in request["rows"]]
    encoded = loaded.encoder.encode_rows(rows)
    probabilities = loaded.network.probabilities(encoded)
    if not np.isfinite(probabilities).all():
        raise PlatformError("The network answered with a number that is not finite; train again.")
    answers: list[dict[str, Any]] = []
    start = 0
    for request in requests:
        part = slice(start, start + len(request["rows"]))
        start = part.stop
        answer: dict[str, Any] = {"probabilities": probabilities[part].tolist()}
        if request["explain"]:
            explained = explain_rows(
                loaded.network,
                loaded.encoder,
                encoded[part],
                request["rows"],
                loaded.signature,
                loaded.statistics,
                request["explain_class"],
            )
            answer["explanations"] = [one.model_dump(mode="json") for one in explained]
        answers.append(answer)
    return answers


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, TrustStramException):
        return {"error": error.to_problem(), "trace": None}
    unforeseen = PlatformError(
        f"The prediction failed in the worker with {type(error).__name__}; the platform's log "
        "has the details."
    )
    return {"error": unforeseen.to_problem(), "trace": "".join(traceback.format_exception(error))}
