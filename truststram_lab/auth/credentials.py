"""Credentials that never show themselves."""

from __future__ import annotations

from truststram_lab.exceptions import ConfigurationError

__all__ = ["ApiKey", "StaticToken", "credential"]


class StaticToken:
    """A bearer credential that does not change.

    Its text is only in ``reveal()``: repr, str, format and pickles do not hold it.

    Args:
        value: what stands after ``Bearer``; printable ASCII without spaces.

    Raises:
        ConfigurationError: empty, or with characters that a header cannot carry.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        text = value.strip()
        # A placeholder of the wrong shape is named by what is wrong, never by its text.
        if not text:
            raise ConfigurationError(
                "The API key is empty; pass api_key= or set TRUSTSTRAM_API_KEY."
            )
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ConfigurationError(
                "The API key holds spaces or characters that no key has; copy it again."
            )
        self._value = text

    def reveal(self) -> str:
        """The credential itself, for the Authorization header."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StaticToken) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hidden)"

    def __reduce__(self) -> str:
        raise TypeError(f"{type(self).__name__} is a secret and is not pickled")


class ApiKey(StaticToken):
    """The key of a person or a service on a platform."""

    __slots__ = ()


def credential(value: str | StaticToken) -> StaticToken:
    """``value`` as a credential that hides itself."""
    return value if isinstance(value, StaticToken) else ApiKey(value)
