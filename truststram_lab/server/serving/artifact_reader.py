"""Reads one uploaded file in a process of its own, which ends with it.

``python -m truststram_lab.server.serving.artifact_reader FILE OUT``: writes the estimator in FILE
to OUT as skops writes it, and says as JSON on its standard output what it takes and tells, or why
it is refused. It has little memory and time, may write nothing but OUT, and no rights that its
platform has beyond files: whatever a hostile file does, it does to this process.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import zipfile
from pathlib import Path

from truststram_lab.exceptions import TrustStramException

__all__ = ["main"]

#: Address space, processor time and the largest file it may write.
_MEMORY_BYTES = 4 * 2**30
_CPU_S = 60
_FILE_BYTES = 2**30

#: What a zip file may unpack to, beside its own size.
_UNPACKED = 100


def main(source: Path, target: Path) -> None:
    for what, limit in (
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_CPU, _CPU_S),
        (resource.RLIMIT_FSIZE, _FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    try:
        said = _read(source, target)
    except TrustStramException as error:
        said = {"refused": error.message, "field": "file"}
    except MemoryError:
        said = {
            "refused": f"Reading the file takes more than {_MEMORY_BYTES // 2**30} GB of memory; "
            "upload a smaller model.",
            "field": "file",
        }
    sys.stdout.write(json.dumps(said))


def _read(source: Path, target: Path) -> dict[str, object]:
    from truststram_lab.models import MLModel
    from truststram_lab.models.describe import described
    from truststram_lab.models.storage import is_state, loaded
    from truststram_lab.models.unpickle import read_pickle

    data = source.read_bytes()
    if zipfile.is_zipfile(source):
        _refuse_bomb(source)
        found = loaded(data, "The file")
        _, signature = described(MLModel.load(source) if is_state(found) else found)
        content = data  # nothing but known types is in it
    else:
        content, signature = described(read_pickle(data))
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    return {"signature": signature.model_dump(mode="json")}


def _refuse_bomb(source: Path) -> None:
    from truststram_lab.exceptions import InvalidInputError

    with zipfile.ZipFile(source) as archive:
        unpacked = sum(one.file_size for one in archive.infolist())
    if unpacked > _UNPACKED * max(source.stat().st_size, 2**20):
        raise InvalidInputError(
            f"The file unpacks to {unpacked:,} bytes, which no model of its size does; save the "
            "model anew.",
            field="file",
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
