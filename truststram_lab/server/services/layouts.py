"""What a round's update must look like, known from the header of its model alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from truststram_lab.schemas.strategies import AnyStrategy, Scaffold
from truststram_lab.server.stores.blobs import BlobStore

if TYPE_CHECKING:
    import numpy as np

    from truststram_lab.learning.weights import State

__all__ = ["CONTROL", "Layouts", "base_of"]

#: Prefix of the platform's control variate in the model's file.
CONTROL = "c/"

_KEPT = 16


def base_of(state: Mapping[str, np.ndarray], strategy: AnyStrategy) -> State:
    """The global model in a file that may carry SCAFFOLD's control variate beside it."""
    if not isinstance(strategy, Scaffold):
        return dict(state)
    return {name: array for name, array in state.items() if not name.startswith(CONTROL)}


class Layouts:
    """Layouts of the newest models; files never change, so what was read stays true."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._known: OrderedDict[str, State] = OrderedDict()

    def expected(self, organisation_id: str, sha256: str, strategy: AnyStrategy) -> State:
        """Names, shapes and types of an update of a round that starts from that file."""
        from truststram_lab.learning import weights
        from truststram_lab.learning.strategies import expected_update
        from truststram_lab.learning.strategies.blocks import like

        key = f"{organisation_id}/{sha256}/{strategy.name}"
        found = self._known.get(key)
        if found is None:
            state, _ = weights.decode(self._blobs.map(organisation_id, sha256))
            # Without values: the file may be let go.
            found = like(expected_update(strategy, like(base_of(state, strategy))))
            self._known[key] = found
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return found
