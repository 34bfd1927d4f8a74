"""Normal noise that nobody can predict or repeat: a keystream of AES turned into normals.

Privacy noise that can be guessed protects nothing, so it comes from a cipher whose key the
operating system drew, and which is kept nowhere: numpy's generators can be run backwards from
their output. Seeded generators are for tests, where a number must come out again.
"""

from __future__ import annotations

import math
import os
import threading
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from ...exceptions import InvalidInputError

__all__ = ["NoiseSource", "SecureRandom", "add_noise", "secure_normal"]

#: Normals made at a time: what they pass through fits a processor's cache.
_CHUNK = 1 << 16
#: The lattice of ``add_noise`` is this many halvings finer than the noise.
_LATTICE_BITS = 30


class NoiseSource(Protocol):
    """What noise is drawn from; ``SecureRandom``, or numpy's ``Generator`` in a test."""

    def standard_normal(self, size: int, /) -> np.ndarray:
        """float64 (size,), independent, mean 0 and variance 1."""

    def random(self, size: int, /) -> np.ndarray:
        """float64 (size,), independent, uniform in [0, 1)."""


class SecureRandom:
    """Normals and uniforms from AES-256 in counter mode (NIST SP 800-38A, section 6.5).

    One key serves for 2**64 blocks, more than anybody draws. A process that forks gets a new
    key in the child, for two processes with one stream would add the same noise. Threads may
    share one.

    Args:
        key: 32 bytes, **for tests only**; by default the operating system draws it, and nobody
            can draw the noise again.

    Raises:
        ValueError: the key does not have 32 bytes.
    """

    def __init__(self, key: bytes | None = None) -> None:
        if key is not None and len(key) != 32:
            raise ValueError(f"A key has 32 bytes, not {len(key)}; leave it out to draw one.")
        self._fixed = key
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        # On use: the cipher's library is loaded by those who draw noise.
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        key = os.urandom(32) if self._fixed is None else self._fixed
        self._stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
        self._process = os.getpid()

    def __repr__(self) -> str:
        return "SecureRandom()"

    def __reduce__(self) -> Any:
        raise TypeError("A SecureRandom is not copied or stored; make a new one where it is used.")

    def _words(self, count: int) -> np.ndarray:
        with self._lock:
            if self._process != os.getpid() and self._fixed is None:
                self._start()
            return np.frombuffer(self._stream.update(bytes(8 * count)), np.dtype("<u8"))

    def random(self, size: int, /) -> np.ndarray:
        """float64 (size,), uniform over the multiples of 2**-53 in [0, 1)."""
        out: np.ndarray = (self._words(size) >> np.uint64(11)) * 2.0**-53
        return out

    def standard_normal(self, size: int, /) -> np.ndarray:
        """float64 (size,), normal with mean 0 and variance 1.

        Box and Muller 1958, "A Note on the Generation of Random Normal Deviates", equation 1.
        The radius comes from 64 bits, so the tail ends at 9.4 standard deviations, beyond
        which a normal lies with probability 4e-21.
        """
        out = np.empty(size)
        for start in range(0, size, _CHUNK):
            part = out[start : start + _CHUNK]
            pairs = (len(part) + 1) // 2
            words = self._words(2 * pairs)
            radius = np.sqrt(-2.0 * np.log((words[:pairs] + 0.5) * 2.0**-64))
            angle = (words[pairs:] >> np.uint64(11)) * (2.0**-53 * 2.0 * math.pi)
            np.multiply(radius, np.cos(angle), out=part[:pairs])
            rest = len(part) - pairs
            np.multiply(radius[:rest], np.sin(angle[:rest]), out=part[pairs:])
        return out


def secure_normal(
    shape: int | tuple[int, ...],
    scale: float,
    *,
    rng: NoiseSource | None = None,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Independent normals with mean 0 and standard deviation ``scale``.

    Args:
        shape: of the result.
        scale: not negative, in the unit of the values; 0 gives zeros.
        rng: a source to go on with; by default a new key, which is kept nowhere.
        dtype: of the result; drawn in float64 and rounded once.

    Raises:
        InvalidInputError: ``scale`` is negative or not finite.
    """
    if not (math.isfinite(scale) and scale >= 0):
        raise InvalidInputError(f"{scale} is no standard deviation of noise; use 0 or more.")
    out = np.zeros(shape, dtype)
    if scale == 0:
        return out
    source = SecureRandom() if rng is None else rng
    flat = out.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        part[...] = source.standard_normal(len(part)) * scale
    return out


def add_noise(values: np.ndarray, scale: float, *, rng: NoiseSource | None = None) -> np.ndarray:
    """``values`` plus normal noise, both on one lattice, as float64.

    A sum of floats shows in its last bits what was added to what. So values and noise are both
    rounded to multiples of a power of two near ``scale * 2**-30``, on which sums are exact: which
    results are possible no longer depends on the values. Rounding lets the L2 sensitivity of P
    values grow by at most ``scale * 2**-30 * sqrt(P)``: 3e-6 of the noise at ten million.

    Args:
        values: finite floats of any shape, below ``2**20 * scale`` in size.
        scale: standard deviation of the noise, not negative; 0 gives the values.
        rng: as in ``secure_normal``.

    Raises:
        InvalidInputError: ``scale`` is negative or not finite, or a value is too large for it.

    Mironov 2012, "On Significance of the Least Significant Bits for Differential Privacy",
    sections 4 and 5. https://doi.org/10.1145/2382196.2382264
    """
    exact = np.asarray(values, np.float64)
    noise = secure_normal(exact.shape, scale, rng=rng, dtype=np.float64)
    if scale == 0:
        return exact.copy()
    largest = float(np.abs(exact).max(initial=0.0))
    if not largest <= scale * 2.0**20:
        raise InvalidInputError(
            f"Noise of {scale:g} hides nothing of values as large as {largest:g}; use noise of at "
            f"least {largest * 2.0**-20:g}."
        )
    grid = 2.0 ** (math.frexp(scale)[1] - _LATTICE_BITS)
    out: np.ndarray = (np.rint(exact / grid) + np.rint(noise / grid)) * grid
    return out
