"""The Stop button below a live card. Importing this module loads ipywidgets (about 0.8 s)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

__all__ = ["StopButton"]

# A plain <button>: reachable with Tab, pressed with Enter or Space. The notebook's own
# shortcuts would take those keys from it, hence the attribute and the stopped propagation.
# A kernel that is gone, or that handles no message before its cell ends, leaves the press
# unanswered: the page itself notices.
_ESM = """
const NO_ANSWER_MS = 5000;
const UNSEEN = "position:absolute;width:1px;height:1px;overflow:hidden";

function render({ model, el }) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("data-lm-suppress-shortcuts", "true");
  const spoken = document.createElement("span");
  spoken.setAttribute("role", "status");
  let unanswered = false;
  let timer = 0;
  const show = () => {
    const stopping = model.get("stopping");
    button.disabled = stopping;
    button.textContent = stopping ? "Stopping\u2026" : "Stop";
    button.title = stopping ? "" : "Stop this run; it can be resumed";
    spoken.style.cssText = unanswered ? "margin-left:8px" : UNSEEN;
    const silence = `No kernel answers. ${model.get("otherwise")}`;
    spoken.textContent = unanswered ? silence : stopping ? "Stopping" : "";
  };
  const giveUp = () => {
    unanswered = true;
    model.set("stopping", false);
    show();
  };
  const heard = () => {
    clearTimeout(timer);
    unanswered = false;
    model.set("stopping", true);
    show();
  };
  button.addEventListener("click", () => {
    unanswered = false;
    model.set("stopping", true);
    model.save_changes();
    clearTimeout(timer);
    timer = setTimeout(giveUp, NO_ANSWER_MS);
  });
  button.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") event.stopPropagation();
  });
  model.on("change:stopping", show);
  model.on("change:heard", heard);
  show();
  el.append(button, spoken);
  return () => {
    clearTimeout(timer);
    model.off("change:stopping", show);
    model.off("change:heard", heard);
  };
}
export default { render };
"""


class StopButton(anywidget.AnyWidget):
    """A button that calls ``stop`` once, from a thread of the kernel's own choice.

    Args:
        stop: must return at once and be safe from any thread; setting an event is.
        otherwise: what stops it when the kernel leaves a press unanswered for five seconds.
    """

    _esm = _ESM

    stopping = traitlets.Bool(False).tag(sync=True)
    """Whether the button was pressed, in any window; it stays pressed."""

    heard = traitlets.Bool(False).tag(sync=True)
    """Whether the kernel took the press in."""

    otherwise = traitlets.Unicode("").tag(sync=True)
    """How to stop without the kernel's answer: ``Stop: ...``."""

    def __init__(self, stop: Callable[[], None], *, otherwise: str = "", **traits: Any) -> None:
        super().__init__(otherwise=otherwise, **traits)
        self._call = stop
        self.observe(self._pressed, names="stopping")
        _answer_where_the_front_end_asks(self.comm)

    def _pressed(self, _: object) -> None:
        # The page takes a press back when nobody answered it.
        if self.stopping and not self.heard:
            self._call()
            self.heard = True


def _answer_where_the_front_end_asks(comm: Any) -> None:
    """Let a press be handled while a cell keeps the kernel's main thread busy.

    ipykernel 7.4 sends a front end's messages to the subshell that last used the comm: here
    the main one, busy with the very cell that is to be stopped. The method is private, so a
    kernel without it is left as it is; Kernel > Interrupt works everywhere.
    """
    if callable(getattr(comm, "_reply_subshell_for", None)):
        comm._reply_subshell_for = lambda _data, default: default
