"""How stateful tests run whose every example is a database on disk."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

__all__ = ["on_disk"]


def on_disk(examples: int, steps: int) -> settings:
    """``examples`` runs of at most ``steps``; making a failure smaller would take minutes."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
