"""How a model is named: ``name``, ``name:version``, ``name@alias``, or by its id."""

from __future__ import annotations

from dataclasses import dataclass

from truststram_lab.exceptions import InvalidInputError

__all__ = ["BUILT_IN", "Reference"]

#: what every model's references may say: the newest version, and the one its endpoint serves
BUILT_IN = ("latest", "deployed")


@dataclass(frozen=True)
class Reference:
    """A model's name taken apart; ``str`` puts it together again.

    Args:
        name: the model's name or id.
        version: a number, a label, ``latest`` or ``deployed``; None if none is named.
        alias: the word after ``@``; never one of :data:`BUILT_IN`, and never with ``version``.
    """

    name: str
    version: str | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read ``text``; whether there is such a model is the platform's to say.

        ``name@latest`` and ``name@deployed`` are the built-in versions of that name.

        Raises:
            InvalidInputError: a part is missing, or both a version and an alias are named.
        """
        at = min((place for mark in ":@" if (place := text.find(mark)) >= 0), default=len(text))
        name, mark, which = text[:at], text[at : at + 1], text[at + 1 :]
        if not mark:
            return cls(name)
        shown = repr(text[:120])
        if not name:
            raise InvalidInputError(
                f"{shown} names no model; write its name before the {mark!r}.", field="model"
            )
        if not which:
            missing = "version" if mark == ":" else "alias"
            raise InvalidInputError(
                f"{shown} names no {missing} after the {mark!r}; write {name[:120]!r} alone, or "
                f"add the {missing}.",
                field="model",
            )
        if "@" in which or ":" in which:
            raise InvalidInputError(
                f"{shown} names more than one version; write name:version or name@alias.",
                field="model",
            )
        if mark == ":" or which in BUILT_IN:
            return cls(name, version=which)
        return cls(name, alias=which)

    @property
    def follows(self) -> bool:
        """Whether it means what the model's endpoint serves: the name alone, or ``deployed``."""
        return self.alias is None and self.version in (None, "deployed")

    @property
    def is_exact(self) -> bool:
        """Whether it says which version it means, and not only which model."""
        return self.version is not None or self.alias is not None

    def __str__(self) -> str:
        if self.alias is not None:
            return f"{self.name}@{self.alias}"
        return self.name if self.version is None else f"{self.name}:{self.version}"
