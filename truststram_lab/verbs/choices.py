"""One sentence for a word that is none of a few."""

from __future__ import annotations

from collections.abc import Sequence

from truststram_lab.exceptions import InvalidInputError, nearest

__all__ = ["not_an_action"]


def not_an_action(action: str, choices: Sequence[str], who: str) -> InvalidInputError:
    """The error for ``action``: the nearest of ``choices``, or all of them."""
    near = nearest(action, choices, most=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose {', '.join(choices)}."
    return InvalidInputError(
        f"{action!r} is nothing {who} can do; {hint}", field="action", choices=list(choices)
    )
