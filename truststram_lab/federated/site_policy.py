"""A site's floor in words, for its card and its preview."""

from __future__ import annotations

from .participation.policy import SitePolicy

__all__ = ["filter_words", "policy_words"]


def filter_words(policy: SitePolicy) -> list[str]:
    """The site's own filters, each as one writes it: ``gradient_clip:max_norm=1``."""
    return [_filter(found.model_dump(exclude_none=True)) for found in policy.own_filters]


def _filter(settings: dict[str, object]) -> str:
    kind = str(settings.pop("type"))
    given = ",".join(f"{name}={value}" for name, value in settings.items() if value is not False)
    return f"{kind}:{given}" if given else kind


def policy_words(policy: SitePolicy) -> list[str]:
    """What the site insists on, one sentence each; empty for a site without a floor."""
    return [sentence for sentence in _sentences(policy) if sentence]


def _sentences(policy: SitePolicy) -> list[str | None]:
    models, strategies = policy.models, policy.strategies
    own = ", ".join(filter_words(policy))
    return [
        f"Every update passes {own}." if own else None,
        _number("Updates are clipped to a norm of {} or less.", policy.max_clip),
        _number("Updates carry noise of a standard deviation of {} or more.", policy.min_noise),
        _number("A run spends an epsilon of {} or less.", policy.max_epsilon),
        f"Only {', '.join(models)} may be trained." if models else None,
        f"Only {', '.join(strategies)} may be used." if strategies else None,
        _number("A run has {} rounds or fewer.", policy.max_rounds),
        None if policy.allow_statistics else "No means or variances of columns leave.",
    ]


def _number(sentence: str, value: float | None) -> str | None:
    return None if value is None else sentence.format(f"{value:g}")
