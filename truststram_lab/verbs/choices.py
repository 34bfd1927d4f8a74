"""One sentence for a word that is none of a few, and for what must be meant."""

from __future__ import annotations

from collections.abc import Sequence

from truststram_lab.exceptions import InvalidInputError, UsageError, nearest

__all__ = ["confirmed", "not_an_action"]


def not_an_action(action: str, choices: Sequence[str], who: str) -> InvalidInputError:
    """The error for ``action``: the nearest of ``choices``, or all of them."""
    near = nearest(action, choices, most=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose {', '.join(choices)}."
    return InvalidInputError(
        f"{action!r} is nothing {who} can do; {hint}", field="action", choices=list(choices)
    )


def confirmed(yes: bool, what: str, line: str) -> None:
    """Refuse what cannot be undone unless it was said that it is meant.

    Args:
        what: happens, as the beginning of a sentence.
        line: that asks for it.
    """
    if not yes:
        raise UsageError(f"{what}; if that is wanted: {line} --yes.", field="yes")
