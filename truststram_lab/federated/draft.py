"""A run before it is announced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from truststram_lab.learning import weights
from truststram_lab.learning.training import initial_state
from truststram_lab.learning.weights import State
from truststram_lab.preprocessing import encoded_width
from truststram_lab.schemas.federation import CreateRun, LocalTraining
from truststram_lab.schemas.strategies import FedAvg

from .bounds import Bounds
from .options import Options
from .preparation import HOST, MIN_SITE_ROWS, Prepared, default_architecture
from .site_work import check_together

if TYPE_CHECKING:
    from .hosted.wish import HostWish

__all__ = ["Draft"]


@dataclass(frozen=True)
class Draft:
    """A run that was checked and is not announced: nobody but this kernel knows of it."""

    prepared: Prepared
    plan: CreateRun
    state: State
    bounds: Bounds | None
    dp_limit: float | None

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        *,
        model: str,
        rounds: int,
        local: LocalTraining,
        options: Options | None = None,
        host: HostWish | None = None,
        deploy: bool = True,
    ) -> Draft:
        """The plan and the initial weights.

        Raises:
            InvalidInputError: the options do not go together, or not with the data.
        """
        chosen = options or Options()
        rate = None if host is None else host.share
        extra, bounds = chosen.plan_fields(prepared, rounds, local, cohort_rate=rate)
        architecture = default_architecture(encoded_width(prepared.signature), prepared.signature)
        state = initial_state(architecture, prepared.seed, local.dtype)
        if host is not None:
            extra |= {
                "hosted": host.planned(
                    prepared, chosen.strategy, architecture, local, extra.get("privacy")
                ),
                "strategy": FedAvg(),
            }
        plan = CreateRun(
            model=model,
            federation=model,
            sites=list(prepared.parts) if host is None else [HOST],
            rounds=rounds,
            local=local,
            seed=prepared.seed,
            architecture=architecture,
            signature=prepared.signature,
            initial_weights_sha256=weights.sha256_hex(weights.encode(state)),
            min_site_rows=MIN_SITE_ROWS,
            simulated=True,
            source=prepared.source,
            split=prepared.split,
            deploy=deploy,
            **extra,
        )
        check_together(plan)
        return cls(prepared, plan, state, bounds, chosen.dp_limit)
