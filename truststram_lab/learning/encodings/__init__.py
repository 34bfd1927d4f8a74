"""An update as bytes: plain, sparse, quantised or both, read back only after every check."""

from .compact import Compact, Levels, compact
from .reading import decode, unpack
from .writing import Encoded, encode, size_bytes

__all__ = ["Compact", "Encoded", "Levels", "compact", "decode", "encode", "size_bytes", "unpack"]
