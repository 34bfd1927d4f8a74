"""Natural numbers as bits, a few more than their entropy: Rice codes on whole arrays.

The low ``width`` bits of every number are kept as they are, plane by plane; what is above
them, mostly 0 or 1, is written in unary: so many zeros, then a one. For geometric numbers, as
the gaps between the coordinates of a top-k are, a code with a well-chosen width needs 0.02 to
0.12 bits a number more than the entropy, which a general compressor would not find either: so
none follows, and no reader has to fear what a few bytes may unfold to.

Golomb 1966, "Run-length encodings", IEEE Trans. Inf. Theory 12; Rice 1979, "Some practical
universal noiseless coding techniques", JPL 79-22, section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["MAX_WIDTH", "RiceCode", "choose", "pack_signs", "read", "read_signs", "write"]

#: No array has 2**40 coordinates, and with that no sum below leaves 64 bits.
MAX_WIDTH = 40

#: Numbers worked on at a time: what they pass through fits a processor's cache.
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class RiceCode:
    """How ``count`` numbers are written: ``width`` planes, then ``unary_bytes``.

    No unary bytes means that no number has more than ``width`` bits.
    """

    count: int
    width: int
    unary_bytes: int

    @property
    def size_bytes(self) -> int:
        """Bytes in all."""
        return self.width * _plane_bytes(self.count) + self.unary_bytes


def _plane_bytes(count: int) -> int:
    return (count + 7) // 8


def choose(numbers: np.ndarray) -> RiceCode:
    """The width that gives the fewest bytes; of equals the smallest.

    Args:
        numbers: integers (n,), 0 or more, below ``2**MAX_WIDTH``.
    """
    count = numbers.size
    largest = int(numbers.max(initial=0))
    fixed = RiceCode(count, largest.bit_length(), 0)
    mean = float(numbers.mean(dtype=np.float64)) if count else 0.0
    # For geometric numbers the best width is near log2(mean * ln 2); the sizes decide.
    near = max(0, math.floor(math.log2(mean * math.log(2)))) if mean > 1.5 else 0
    codes = [fixed]
    for width in range(max(0, near - 1), min(near + 2, fixed.width)):
        quotients = int((numbers >> width).sum(dtype=np.int64))
        codes.append(RiceCode(count, width, (quotients + count + 7) // 8))
    return min(codes, key=lambda code: (code.size_bytes, code.width))


def write(numbers: np.ndarray, code: RiceCode) -> bytes:
    """``numbers`` by ``code``, which ``choose`` gave for them."""
    planes = [
        np.packbits((numbers >> plane & 1).astype(np.uint8)).tobytes()
        for plane in range(code.width)
    ]
    return b"".join([*planes, _write_unary(numbers, code)])


def _write_unary(numbers: np.ndarray, code: RiceCode) -> bytes:
    if not code.unary_bytes:
        return b""
    bits = np.zeros(8 * code.unary_bytes, np.uint8)
    at = -1
    for start in range(0, numbers.size, _CHUNK):
        ends = np.cumsum((numbers[start : start + _CHUNK] >> code.width) + 1, dtype=np.int64)
        ends += at
        bits[ends] = 1
        at = int(ends[-1])
    return np.packbits(bits).tobytes()


def read(body: memoryview, code: RiceCode, limit: int) -> np.ndarray:
    """The numbers that ``write`` wrote, int64 (count,); the bytes may be anybody's.

    No more is allocated than 17 bytes for each of the ``count`` numbers and 8 for each byte of
    ``body``: who calls has checked the count.

    Args:
        body: exactly ``code.size_bytes`` bytes.
        code: how they were written.
        limit: the largest number that is allowed.

    Raises:
        ValueError: the bytes are not what ``write`` would write for numbers up to ``limit``.
    """
    if code.width > max(limit.bit_length(), 0) or code.width > MAX_WIDTH:
        raise ValueError(f"numbers of {code.width} bits where {limit} is the largest")
    each = _plane_bytes(code.count)
    numbers = _read_unary(body[code.width * each :], code)
    if int(numbers.max(initial=0)) > limit >> code.width:
        raise ValueError(f"a number is over {limit}")
    numbers <<= code.width
    for plane in range(code.width):
        bits = _read_plane(body[plane * each : (plane + 1) * each], code.count)
        for start in range(0, code.count, _CHUNK):
            part = bits[start : start + _CHUNK].astype(np.int64)
            numbers[start : start + _CHUNK] |= part << plane
    if int(numbers.max(initial=0)) > limit:
        raise ValueError(f"a number is over {limit}")
    return numbers


def _read_unary(body: memoryview, code: RiceCode) -> np.ndarray:
    if not code.unary_bytes:
        return np.zeros(code.count, np.int64)
    packed = np.frombuffer(body, np.uint8)
    found = sum(
        int(np.bitwise_count(packed[start : start + _CHUNK]).sum(dtype=np.int64))
        for start in range(0, packed.size, _CHUNK)
    )
    if found != code.count:
        raise ValueError(f"{found} numbers instead of {code.count}")
    if not packed[-1]:
        raise ValueError("bytes after the last number")
    ends = np.flatnonzero(np.unpackbits(packed))
    ends[1:] -= ends[:-1] + 1
    return ends.astype(np.int64, copy=False)


def _read_plane(body: memoryview, count: int) -> np.ndarray:
    packed = np.frombuffer(body, np.uint8)
    if count % 8 and packed[-1] & (0xFF >> count % 8):
        raise ValueError("bits after the last number")
    return np.unpackbits(packed, count=count)


def pack_signs(negative: np.ndarray) -> bytes:
    """One bit for each of the booleans (n,), the last byte filled with zeros."""
    return np.packbits(negative).tobytes()


def read_signs(body: memoryview, count: int) -> np.ndarray:
    """The booleans (count,) that ``pack_signs`` packed.

    Raises:
        ValueError: a bit after the last one is set.
    """
    return _read_plane(body, count).view(np.bool_)
