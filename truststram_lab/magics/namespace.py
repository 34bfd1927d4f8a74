"""The user's variables, by name. pandas is looked at only where the user loaded it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from truststram_lab.exceptions import InvalidInputError, NotFoundError, nearest

__all__ = ["Scope", "Variable"]


@dataclass(frozen=True)
class Variable:
    """A value of the user's, and the name it goes by."""

    name: str
    value: Any


class Scope:
    """What a command may refer to: the user's namespace and, in a function, its locals."""

    def __init__(self, user: Mapping[str, Any], local: Mapping[str, Any] | None = None) -> None:
        self._user = user
        self._local = local or {}

    def frames(self) -> list[str]:
        """Names of the DataFrames, sorted."""
        return sorted(name for name, value in self._visible() if _is_frame(value))

    def rows(self) -> list[str]:
        """Names of what can be predicted: DataFrames, dicts, lists of dicts; sorted."""
        return sorted(name for name, value in self._visible() if _is_rows(value))

    def columns(self, name: str) -> list[str]:
        """Column names of the DataFrame ``name``; empty if it is none."""
        frame = self._get(name)
        return [str(column) for column in frame.columns] if _is_frame(frame) else []

    def labels(self, name: str, column: str, most: int = 50) -> list[str]:
        """The different values of a column with few of them; empty otherwise."""
        if column not in self.columns(name):
            return []
        frame = self._get(name)
        # Bounded, because this runs while somebody types.
        values = frame.loc[:, frame.columns.astype(str) == column].iloc[:100_000, 0]
        found = values.dropna().unique()
        return sorted(_label(value) for value in found) if len(found) <= most else []

    def data(self, word: str, demos: Sequence[str]) -> str | Variable:
        """What ``word`` stands for: a demo data set's name, or a DataFrame.

        Raises:
            NotFoundError: it is neither; the nearest of both are in the sentence.
            InvalidInputError: it is both, or a variable of another type.
        """
        value = self._get(word)
        if word in demos:
            if _is_frame(value):
                raise InvalidInputError(
                    f"{word!r} is a demo data set and a DataFrame of yours; "
                    f"give yours another name: my_{word.replace('-', '_')} = {word}.",
                    field="data",
                )
            return word
        if _is_frame(value):
            return Variable(word, value)
        frames = self.frames()
        if value is not None:
            raise InvalidInputError(
                f"{word!r} is a {type(value).__name__}, not a DataFrame; "
                + _offer({"your DataFrames": frames, "demo data": demos}),
                field="data",
                choices=[*frames, *demos],
            )
        near = nearest(word, [*frames, *demos])
        raise NotFoundError(
            f"{word!r} is neither a demo data set nor a DataFrame here; "
            + (
                f"did you mean {' or '.join(near)}?"
                if near
                else _offer({"your DataFrames": frames, "demo data": demos})
            ),
            name=word,
            choices=near or [*frames, *demos],
        )

    def variable(self, word: str) -> Variable:
        """The variable ``word``.

        Raises:
            NotFoundError: there is none; the nearest are in the sentence.
        """
        if self.knows(word):
            return Variable(word, self._get(word))
        near = nearest(word, self.rows())
        raise NotFoundError(
            f"There is no variable {word!r} here; "
            + (
                f"did you mean {' or '.join(near)}?"
                if near
                else "give a dict of column to value, a list of them, or a DataFrame."
            ),
            name=word,
            choices=near,
        )

    def knows(self, name: str) -> bool:
        """Whether there is such a variable."""
        return name in self._local or name in self._user

    def _get(self, name: str) -> Any:
        return self._local.get(name, self._user.get(name))

    def _visible(self) -> Iterator[tuple[str, Any]]:
        for name, value in {**self._user, **self._local}.items():
            if not name.startswith("_") and name not in ("In", "Out"):
                yield name, value


def _is_frame(value: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _label(value: Any) -> str:
    # As in a model's signature: a whole float is written as a whole number.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_rows(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], dict)
    return isinstance(value, dict) or _is_frame(value)


def _offer(kinds: Mapping[str, Sequence[str]]) -> str:
    return (
        "choose "
        + "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)
        + "."
    )
