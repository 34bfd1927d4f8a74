"""What a federation in this kernel keeps of each client: in files, however many they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from truststram_lab.learning.filters import ErrorFeedback
from truststram_lab.learning.strategies.scaffold import correction, no_control
from truststram_lab.learning.virtual import ClientStates
from truststram_lab.learning.weights import State
from truststram_lab.schemas.simulation import Hosted
from truststram_lab.schemas.strategies import Scaffold

__all__ = ["KernelMemory"]

_CONTROL = "c/"


class KernelMemory:
    """The strategy's ``server`` state, and by client: control variate, what filters held back.

    Args:
        like: the model's weights.
    """

    def __init__(self, hosted: Hosted, like: Mapping[str, np.ndarray]) -> None:
        self.server: State = {}
        self._clients = hosted.clients
        self._zeros = no_control(like) if isinstance(hosted.strategy, Scaffold) else {}
        self._controls = ClientStates(hosted.clients, self._zeros) if self._zeros else None
        self._residuals: ClientStates | None = None

    def correction(self, client: int) -> State | None:
        """SCAFFOLD's c - c_i, by weight; None with other strategies."""
        if self._controls is None:
            return None
        return correction(self.server or self._zeros, self._controls[client])

    def new_control(self, client: int, delta: State, path: float) -> State:
        """Keep the client's new control variate, and give what it changed by."""
        assert self._controls is not None, "only SCAFFOLD asks"
        own, server = self._controls[client], self.server or self._zeros
        change: State = {}
        for name, former in own.items():
            drift = delta[name.removeprefix(_CONTROL)].astype(np.float64) / path
            change[name] = (-drift - server[name]).astype(former.dtype)
        self._controls[client] = {name: own[name] + change[name] for name in own}
        return change

    def feedback(self, client: int) -> ErrorFeedback:
        """What the client's filters left unsent."""
        if self._residuals is None or client not in self._residuals:
            return ErrorFeedback({})
        return ErrorFeedback(self._residuals[client])

    def keep(self, client: int, feedback: ErrorFeedback) -> None:
        """Keep what the client's filters leave unsent now."""
        if self._residuals is None:
            self._residuals = ClientStates(self._clients, feedback.residual)
        self._residuals[client] = feedback.residual

    def close(self) -> None:
        """Let go of the files."""
        for store in (self._controls, self._residuals):
            if store is not None:
                store.close()
