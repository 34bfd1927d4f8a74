"""The Stop button below a live card. Importing this module loads ipywidgets (about 0.8 s)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

__all__ = ["StopButton"]

# A plain <button>: reachable with Tab, pressed with Enter or Space. The notebook's own
# shortcuts would take those keys from it, hence the attribute and the stopped propagation.
_ESM = """
function render({ model, el }) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("data-lm-suppress-shortcuts", "true");
  const spoken = document.createElement("span");
  spoken.setAttribute("role", "status");
  spoken.style.cssText = "position:absolute;width:1px;height:1px;overflow:hidden";
  const show = () => {
    const stopping = model.get("stopping");
    button.disabled = stopping;
    button.textContent = stopping ? "Stopping\\u2026" : "Stop";
    button.title = stopping ? "" : "Stop this run; it can be resumed";
    spoken.textContent = stopping ? "Stopping" : "";
  };
  button.addEventListener("click", () => {
    model.set("stopping", true);
    model.save_changes();
  });
  button.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") event.stopPropagation();
  });
  model.on("change:stopping", show);
  show();
  el.append(button, spoken);
  return () => model.off("change:stopping", show);
}
export default { render };
"""


class StopButton(anywidget.AnyWidget):
    """A button that calls ``stop`` once, from a thread of the kernel's own choice.

    Args:
        stop: must return at once and be safe from any thread; setting an event is.
    """

    _esm = _ESM

    stopping = traitlets.Bool(False).tag(sync=True)
    """Whether the button was pressed, in any window; it stays pressed."""

    def __init__(self, stop: Callable[[], None], **traits: Any) -> None:
        super().__init__(**traits)
        self.observe(lambda _: stop(), names="stopping")
        _answer_where_the_front_end_asks(self.comm)


def _answer_where_the_front_end_asks(comm: Any) -> None:
    """Let a press be handled while a cell keeps the kernel's main thread busy.

    ipykernel 7.4 sends a front end's messages to the subshell that last used the comm: here
    the main one, busy with the very cell that is to be stopped. The method is private, so a
    kernel without it is left as it is; Kernel > Interrupt works everywhere.
    """
    if callable(getattr(comm, "_reply_subshell_for", None)):
        comm._reply_subshell_for = lambda _data, default: default
