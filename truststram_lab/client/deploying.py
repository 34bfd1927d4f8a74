"""A trained estimator on its way to an endpoint."""

from __future__ import annotations

import re
from typing import Any

from truststram_lab.schemas.registry import CreateVersion
from truststram_lab.schemas.tables import Signature

__all__ = ["default_name", "described", "version_of"]


def described(model: Any) -> tuple[bytes, Signature]:
    """See ``models.describe.described``; scikit-learn is loaded when it is called."""
    from truststram_lab.models.describe import described

    return described(model)


def version_of(sha256: str, signature: Signature) -> CreateVersion:
    """What is registered of the file with that content."""
    return CreateVersion(format="skops", weights_sha256=sha256, signature=signature)


def default_name(model: Any, signature: Signature) -> str:
    """A name for what has none: of the algorithm and the target."""
    kind = getattr(model, "algorithm", None) or type(model).__name__
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", f"{kind}-{signature.target}").lower()
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-")[:100]
