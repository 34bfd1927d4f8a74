"""The Jupyter kernel we are in: what it publishes, and the cell that it executes."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

__all__ = [
    "attended",
    "current_cell",
    "current_number",
    "execution_count",
    "in_kernel",
    "publish",
    "shell",
]

#: A cell's id in a notebook file (nbformat 4.5). Some editors send the address of the file on
#: this computer instead, which must not get into what is saved.
_CELL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def in_kernel() -> bool:
    """Whether a Jupyter kernel shows what we publish."""
    return getattr(shell(), "kernel", None) is not None


def attended() -> bool:
    """Whether somebody sits in front of the cell that runs now.

    Who runs notebooks unattended allows no prompts; a button would only leave the state of
    a widget in the file.
    """
    return bool(_request().get("content", {}).get("allow_stdin", True))


def current_cell() -> str | None:
    """The id of the cell that is executed on this thread, as its file has it; None if the
    front end does not say."""
    found = _request().get("metadata", {}).get("cellId")
    return found if isinstance(found, str) and _CELL_ID.fullmatch(found) else None


def current_number() -> int | None:
    """The number in front of the cell that runs now; None where there is no history."""
    # Not the execution count: newer releases of IPython raise it before the cell's code runs.
    history = getattr(getattr(shell(), "history_manager", None), "input_hist_raw", None)
    return len(history) - 1 if history and len(history) > 1 else None


def execution_count() -> int | None:
    """The same number for as long as one cell runs; None outside IPython."""
    return getattr(shell(), "execution_count", None)


def publish(
    bundle: Mapping[str, object],
    display_id: str | None = None,
    *,
    update: bool = False,
    metadata: Mapping[str, object] | None = None,
) -> None:
    """Put a mimebundle into the current cell's output, or in the place of ``display_id``.

    Args:
        metadata: of the output; saved with it until the next update replaces it.
    """
    transient = {} if display_id is None else {"display_id": display_id}
    shell().display_pub.publish(
        data=dict(bundle), metadata=dict(metadata or {}), transient=transient, update=update
    )


def _request() -> dict[str, Any]:
    request: dict[str, Any] = shell().kernel.get_parent()
    return request


def shell() -> Any:
    """IPython's shell; None outside of it."""
    # Without IPython loaded there is no shell, and nothing to load it for.
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()
