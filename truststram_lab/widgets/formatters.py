"""How IPython shows our results. Types are named, so that nothing is loaded for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .live import follow, in_kernel, publish, seen_in_this_cell

if TYPE_CHECKING:
    from truststram_lab.schemas.serving import Prediction

__all__ = ["register_formatters", "unregister_formatters"]

_RUNS = (
    ("truststram_lab.federated.run", "FederatedRun"),
    ("truststram_lab.federated.watch", "WatchedRun"),
    ("truststram_lab.verbs.sweeping", "Sweep"),
)
_PREDICTION = ("truststram_lab.schemas.serving", "Prediction")


def register_formatters(shell: Any) -> None:
    """Show predictions as cards, and a run live unless its cell shows it already."""
    formatter = shell.display_formatter
    formatter.mimebundle_formatter.for_type_by_name(*_PREDICTION, _prediction)
    for module, name in _RUNS:
        formatter.ipython_display_formatter.for_type_by_name(module, name, _show_run)


def unregister_formatters(shell: Any) -> None:
    """Take them away again; fine when they are not there."""
    formatter = shell.display_formatter
    formatter.mimebundle_formatter.pop(".".join(_PREDICTION), None)
    for module, name in _RUNS:
        formatter.ipython_display_formatter.pop(f"{module}.{name}", None)


def _prediction(prediction: Prediction) -> dict[str, object]:
    from truststram_lab.render import prediction_card

    return prediction_card([prediction]).bundle()


def _show_run(run: Any) -> None:
    if seen_in_this_cell(run):
        return
    if in_kernel() and getattr(run, "active", False):
        follow(run, lambda: bool(run.active))
        return
    publish(run.card().bundle())
