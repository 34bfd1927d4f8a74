"""What a host remembers from round to round: the strategy's state, and each client's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from truststram_lab.learning.filters import ErrorFeedback
from truststram_lab.learning.personal import join, split_head
from truststram_lab.learning.strategies.scaffold import correction, no_control
from truststram_lab.learning.weights import State
from truststram_lab.schemas.personal import FedPer
from truststram_lab.schemas.simulation import Hosted
from truststram_lab.schemas.strategies import Scaffold

from .own_states import OwnStates

__all__ = ["ClientMemory"]

_CONTROL = "c/"
#: SCAFFOLD's control variates, what filters left unsent, and models of the clients' own.
_PARTS = ("controls", "residuals", "personal")


class ClientMemory:
    """The strategy's ``server`` state, and by client: control variate, residual, own model.

    Args:
        like: the model's weights.
        states: a part's name -> what the clients keep of it.
    """

    def __init__(
        self,
        hosted: Hosted,
        like: Mapping[str, np.ndarray],
        states: Callable[[str], OwnStates],
        server: State | None = None,
    ) -> None:
        self.server: State = server or {}
        self._zeros = no_control(like) if isinstance(hosted.strategy, Scaffold) else {}
        self._head = hosted.personal.head if isinstance(hosted.personal, FedPer) else None
        self._parts = {part: states(part) for part in _PARTS}

    @property
    def corrects(self) -> bool:
        """Whether every client has a correction of its own."""
        return bool(self._zeros)

    def correction(self, client: int) -> State | None:
        """SCAFFOLD's c - c_i, by weight: algorithm 1, line 10; None with other strategies."""
        if not self._zeros:
            return None
        return correction(self.server or self._zeros, self._control(client))

    def new_control(self, client: int, delta: State, path: float) -> State:
        """Keep the client's new control variate, and give what it changed by: lines 12 and 13."""
        own, server = self._control(client), self.server or self._zeros
        change: State = {}
        for name, former in own.items():
            drift = delta[name.removeprefix(_CONTROL)].astype(np.float64) / path
            change[name] = (-drift - server[name]).astype(former.dtype)
        self._parts["controls"][client] = {name: own[name] + change[name] for name in own}
        return change

    def _control(self, client: int) -> State:
        return self._parts["controls"].get(client, self._zeros)

    def feedback(self, client: int) -> ErrorFeedback:
        """What the client's filters left unsent."""
        return ErrorFeedback(self._parts["residuals"].get(client, {}))

    def keep(self, client: int, feedback: ErrorFeedback) -> None:
        """Keep what the client's filters leave unsent now."""
        self._parts["residuals"][client] = feedback.residual

    def personal(self, client: int, shared: State) -> State:
        """The client's own model beside the ``shared`` one, which it is before its first round."""
        own = self._parts["personal"]
        if client not in own:
            return shared
        if self._head is None:
            return own[client]
        return join(shared, split_head(shared, self._head)[0], own[client])

    def keep_personal(self, client: int, state: State) -> None:
        """Keep the client's own model; of FedPer its head alone."""
        kept = state if self._head is None else split_head(state, self._head)[1]
        self._parts["personal"][client] = kept

    def indexes(self) -> dict[str, bytes]:
        """By part, what makes its rows count."""
        found = {part: states.index() for part, states in self._parts.items()}
        return {part: index for part, index in found.items() if index is not None}

    def forget(self) -> None:
        """Let go of everything that serves the rounds; own models stay readable."""
        for part, states in self._parts.items():
            if part != "personal":
                states.close()

    def close(self) -> None:
        """Let go of all files."""
        for states in self._parts.values():
            states.close()
