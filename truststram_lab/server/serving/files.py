"""Stored files as a worker reads them: known by their content, never by a name of the caller's."""

from __future__ import annotations

import hashlib
from pathlib import Path

from truststram_lab.exceptions import PlatformError

__all__ = ["content_of"]


def content_of(label: str, path: str, expected_sha256: str) -> bytes:
    """The content of a version's file.

    Args:
        label: of the version, for the sentence; the path is the platform's own affair.

    Raises:
        PlatformError: it cannot be read, or is not what was stored.
    """
    try:
        body = Path(path).read_bytes()
    except OSError as error:
        raise PlatformError(
            f"The stored weights of {label} cannot be read ({error.strerror}); restore the file "
            f"with SHA-256 {expected_sha256} or train again."
        ) from error
    found = hashlib.sha256(body).hexdigest()
    if found != expected_sha256:
        raise PlatformError(
            f"The stored weights of {label} are damaged: their SHA-256 is {found}, not "
            f"{expected_sha256}; restore the file or train again."
        )
    return body
