"""How a simulated run differs from plain averaging: strategy, filters, privacy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal

from truststram_lab.exceptions import InvalidInputError, nearest
from truststram_lab.learning.privacy.planner import plan as planned
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.filters import Filter, parse_filters
from truststram_lab.schemas.strategies import AnyStrategy, FedAvg

from .bounds import Bounds, checked_bounds, demo_bounds
from .participation.terms import STATISTICS_NOISE
from .preparation import Prepared
from .record_privacy import EPSILON, PrivacyWish, record_terms

__all__ = ["Options", "filters_of", "unit_of"]

_EXAMPLES = {"dp": "3.0", "delta": "1e-5", "clip": "1.0", "dp_limit": "10.0"}


@dataclass(frozen=True)
class Options:
    """What ``verbs.federate`` hands on, in its own words.

    Args:
        dp: epsilon of the run, None for no privacy.
        unit: who is hidden: "record", one row of a site, or "client", a whole site.
        bounds: numeric column -> (least, greatest possible value); the demo data have theirs.
        dp_limit: the most that may ever be spent on this data; None leaves it as it is.

    Raises:
        InvalidInputError: one of the numbers is none.
    """

    strategy: AnyStrategy = field(default_factory=FedAvg)
    filters: tuple[Filter, ...] = ()
    dp: float | None = None
    delta: float | None = None
    clip: float = 1.0
    unit: Literal["record", "client"] = "record"
    bounds: Mapping[str, Any] | None = None
    dp_limit: float | None = None

    def __post_init__(self) -> None:
        for name in ("dp", "delta", "clip", "dp_limit"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
                raise InvalidInputError(
                    f"{name} is {value!r}, which is no number; write for example {name}="
                    f"{_EXAMPLES[name]}.",
                    field=name,
                )

    @property
    def clips_rows(self) -> bool:
        """Whether every step's gradient is made of clipped rows."""
        return self.dp is not None and self.unit == "record"

    def plan_fields(
        self,
        prepared: Prepared,
        rounds: int,
        local: LocalTraining,
        *,
        cohort_rate: float | None = None,
    ) -> tuple[dict[str, Any], Bounds | None]:
        """The fields of the plan that these options set, and the bounds, which stay here.

        Args:
            cohort_rate: with a host, the chance of a client to be in a round; None without.

        Raises:
            InvalidInputError: a number is out of range, or a column has no bounds.
        """
        fields: dict[str, Any] = {"strategy": self.strategy, "filters": [*self.filters]}
        self._check_lonely()
        if self.dp is None:
            return fields, None
        if self.unit == "client":
            delta = 1e-5 if self.delta is None else self.delta
            found = planned(
                self.dp,
                delta,
                rounds,
                len(prepared.parts),
                unit="client",
                cohort_rate=1.0 if cohort_rate is None else cohort_rate,
                clip=self.clip,
            )
            fields |= {"privacy": found.plan, "config": {EPSILON: float(self.dp)}}
            return fields, None
        given = self.bounds
        if given is None and prepared.source.kind == "demo":
            given = demo_bounds(prepared.source.name, prepared.signature)
        bounds = checked_bounds(given, prepared.signature)
        wish = PrivacyWish(self.dp, self.delta, self.clip)
        sizes = [len(part) for part in prepared.parts.values()]
        # A virtual client may have one row, which says nothing of how large delta may be.
        hidden = None if cohort_rate is None else sum(sizes)
        terms = record_terms(wish, sizes, prepared.signature, rounds, local, hidden_among=hidden)
        told = {EPSILON: float(self.dp)}
        if terms.statistics_noise is not None:
            told[STATISTICS_NOISE] = terms.statistics_noise
        fields |= {"privacy": terms.plan, "config": told}
        return fields, bounds

    def _check_lonely(self) -> None:
        if self.dp is not None:
            return
        lonely = {"--delta": self.delta, "--bounds": self.bounds, "--dp-limit": self.dp_limit}
        name = next((name for name, value in lonely.items() if value is not None), None)
        if name is not None:
            raise InvalidInputError(
                f"{name} belongs to --dp EPSILON; add for example --dp 3, or leave it out.",
                field=name.lstrip("-"),
            )


def unit_of(text: str) -> Literal["record", "client"]:
    """The unit that a text names.

    Raises:
        InvalidInputError: it names none.
    """
    if text == "record":
        return "record"
    if text == "client":
        return "client"
    close = nearest(text, ["record", "client"], most=1)
    hint = f"did you mean {close[0]!r}?" if close else "it is record or client."
    raise InvalidInputError(
        f"{text!r} is no unit of privacy; {hint} record hides one row of a site, client a whole "
        "site.",
        field="dp_unit",
        choices=["record", "client"],
    )


def filters_of(given: Sequence[str | Mapping[str, Any] | Filter] | str) -> tuple[Filter, ...]:
    """Filters from texts such as ``gradient_clip:max_norm=1.0``, mappings, or models.

    Raises:
        InvalidInputError: as ``schemas.filters.parse_filters``, or a text is no key=value.
    """
    listed = [given] if isinstance(given, str) else [*given]
    return parse_filters([_filter(one) if isinstance(one, str) else one for one in listed])


def _filter(text: str) -> dict[str, Any]:
    """``type:key=value,key=value`` as a mapping; values are numbers, true or false."""
    kind, _, rest = text.partition(":")
    found: dict[str, Any] = {"type": kind.strip()}
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value):
            raise InvalidInputError(
                f"{part!r} of the filter {text!r} is no key=value; write for example "
                "gradient_clip:max_norm=1.0.",
                field="filters",
            )
        if key in found:
            raise InvalidInputError(
                f"The filter {text!r} gives {key} twice; give it once.", field="filters"
            )
        try:
            found[key] = json.loads(value.lower())
        except ValueError:
            found[key] = value
    return found
