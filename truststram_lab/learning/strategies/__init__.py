"""How the platform makes one model of many updates: pure functions on arrays, numpy only.

``aggregate`` does a round of any strategy; one file holds one idea::

    mean         FedAvg, FedProx: the weighted mean, streamed        least memory, any number
    moments      FedAvgM, FedAdam, FedYogi: what is done with it     state between the rounds
    scaffold     control variates, both sides of them                state on both sides
    coordinates  median, trimmed mean                                block by block of columns
    krum         Krum, multi-Krum                                    block by block of columns
    reading      where the updates come from: memory, or files
    blocks       what all share: blocks, whole numbers, the last addition
"""

from __future__ import annotations

from .aggregation import Aggregate, aggregate, expected_update, shared_with_sites
from .coordinates import median, trimmed_mean
from .krum import krum, multi_krum
from .mean import Mean, fed_avg
from .reading import DecodedUpdates, HeldUpdates, StoredUpdates, Updates

__all__ = [
    "Aggregate",
    "DecodedUpdates",
    "HeldUpdates",
    "Mean",
    "StoredUpdates",
    "Updates",
    "aggregate",
    "expected_update",
    "fed_avg",
    "krum",
    "median",
    "multi_krum",
    "shared_with_sites",
    "trimmed_mean",
]
