"""What came of computing a run's rounds again from the stored files."""

from __future__ import annotations

from pydantic import Field

from .base import Schema

__all__ = ["ArrayDifference", "RoundReplay"]


class ArrayDifference(Schema):
    """One array that came out otherwise: how many numbers differ, and by how much at most."""

    name: str
    differing: int
    coordinates: int
    largest: float | None = Field(description="largest absolute difference; None: other shape")


class RoundReplay(Schema):
    """One round, computed again.

    Attributes:
        expected: SHA-256 of the platform's result.
        found: of what the stored files give.
        noised: whether the round's noised mean was taken from its file: noise is drawn once.
        differences: array by array; empty where the digests are equal.
    """

    number: int
    updates: int
    expected: str
    found: str
    noised: bool = False
    differences: list[ArrayDifference] = Field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether the result is the same file, bit for bit."""
        return self.expected == self.found
