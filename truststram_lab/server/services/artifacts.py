"""Uploaded files that become versions, after a process of its own has read them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.schemas.registry import CreateVersion, ModelVersion, RegisterArtifact
from truststram_lab.schemas.tables import Signature
from truststram_lab.server.stores.blobs import BlobStore

from .registry import RegistryService

__all__ = ["ArtifactsService"]

#: Seconds of waiting; the reader itself has a limit of processor time.
_PATIENCE_S = 120.0
_PIECE_BYTES = 2**20


class ArtifactsService:
    """Never opens an uploaded file itself."""

    def __init__(self, registry: RegistryService, blobs: BlobStore) -> None:
        self._registry = registry
        self._blobs = blobs

    def register(self, organisation_id: str, ref: str, request: RegisterArtifact) -> ModelVersion:
        """Read the file, keep it without code, and register it as the next version.

        Raises:
            ModelNotFoundError: no such model.
            InvalidInputError: no such file, or it is refused; the sentence names the type.
            ConflictError: the model has a version with that label.
        """
        model = self._registry.get_model(organisation_id, ref)
        if self._registry.file(organisation_id, request.sha256) is None:
            raise InvalidInputError(
                f"No file with SHA-256 {request.sha256} is stored; upload it first.",
                field="sha256",
            )
        label = request.label or self._registry.first_label(organisation_id, model.name)
        with tempfile.TemporaryDirectory(prefix="truststram-artifact-") as folder:
            target = Path(folder) / "model.skops"
            said = _read(self._blobs.path(organisation_id, request.sha256), target)
            with self._blobs.writer(organisation_id) as writer, target.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    writer.write(piece)
                sha256 = writer.sha256
                self._registry.keep(organisation_id, writer, sha256)
        signature = Signature.model_validate(said["signature"])
        _check_type(model.type, signature)
        version = CreateVersion(
            label=label, format="skops", weights_sha256=sha256, signature=signature
        )
        return self._registry.create_version(organisation_id, model.name, version)


def _read(source: Path, target: Path) -> dict[str, Any]:
    """What the reader says of the file; its result lies at ``target`` then."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "TMPDIR")
    }
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, our module
            [
                sys.executable,
                *("-P", "-m", "truststram_lab.server.serving.artifact_reader"),
                *(str(source), str(target)),
            ],
            capture_output=True,
            timeout=_PATIENCE_S,
            cwd=target.parent,
            env={**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _gave_up(f"took longer than {_PATIENCE_S:g} s") from None
    if done.returncode != 0:
        raise _gave_up(f"ended with status {done.returncode}")
    said: dict[str, Any] = json.loads(done.stdout)
    if "refused" in said:
        raise InvalidInputError(str(said["refused"]), field=str(said["field"]))
    return said


def _gave_up(why: str) -> InvalidInputError:
    return InvalidInputError(
        f"The process that was to read the file {why}, so the file is refused; save the "
        "estimator with skops, or a smaller one.",
        field="file",
    )


def _check_type(kind: str | None, signature: Signature) -> None:
    found = signature.task
    if kind is not None and kind != found:
        raise InvalidInputError(
            f"The model is for {kind} and the file's estimator for {found}; upload it to a model "
            f"of type {found!r}.",
            field="file",
        )
