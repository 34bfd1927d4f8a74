"""Runtime ``onnx``: estimators that were converted, in onnxruntime and numpy alone."""

from __future__ import annotations

from typing import Any

from truststram_lab.exceptions import PlatformError
from truststram_lab.preprocessing.table_transform import TableTransform
from truststram_lab.schemas.tables import Signature

from .estimators import Estimator
from .files import content_of
from .onnx_model import OnnxModel

__all__ = ["open_version"]


def open_version(described: dict[str, Any]) -> Estimator:
    """The version, ready to compute.

    Raises:
        PlatformError: its converted file is missing, damaged or does not fit.
    """
    label = described["label"]
    content = content_of(label, described["weights"], described["weights_sha256"])
    try:
        model = OnnxModel(content)
    except ValueError as error:
        raise PlatformError(
            f"The converted file of {label} cannot be computed; deploy it again."
        ) from error
    transform = None if model.transform is None else TableTransform.from_document(model.transform)
    signature = Signature.model_validate(described["signature"])
    return Estimator(label, signature, transform, model.names, model)
