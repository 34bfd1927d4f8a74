"""Who takes part in a round, how updates are put together, and which model is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from truststram_lab.exceptions import InvalidInputError, nearest
from truststram_lab.schemas.participation import Quorum
from truststram_lab.schemas.strategies import AnyStrategy, as_strategy

if TYPE_CHECKING:
    from .fl_server import FederatedServer
    from .network_model import NetworkModel

__all__ = ["FederatedLearningCoordinator", "model_from"]

_SETTINGS = ("architecture", "layers", "learning_rate", "optimizer", "seed")


class FederatedLearningCoordinator:
    """The policy and the model of a federation; ``serve`` runs it.

    A round asks ``max(min_fit_clients, floor(fraction_fit * present))`` of the clients, and the
    first one opens when ``min_clients`` are present.

    Args:
        strategy: such as ``federated_averaging`` or ``fedprox:mu=0.1``.
        min_clients: present before the first round.
        min_fit_clients: the fewest that train in a round.
        min_eval_clients: the fewest that evaluate.
        fraction_fit: share of the present clients that train in a round.
        fraction_eval: share that evaluates.

    Raises:
        InvalidInputError: an unknown strategy, or a number out of its range.
    """

    def __init__(
        self,
        strategy: str | Mapping[str, Any] | AnyStrategy = "federated_averaging",
        min_clients: int = 1,
        min_fit_clients: int = 1,
        min_eval_clients: int = 1,
        fraction_fit: float = 1.0,
        fraction_eval: float = 1.0,
    ) -> None:
        self.strategy = as_strategy(strategy)
        for name, count in (
            ("min_clients", min_clients),
            ("min_fit_clients", min_fit_clients),
            ("min_eval_clients", min_eval_clients),
        ):
            if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 10_000:
                raise InvalidInputError(
                    f"{name} is {count!r}, but must be a whole number from 1 to 10000.", field=name
                )
        for name, share in (("fraction_fit", fraction_fit), ("fraction_eval", fraction_eval)):
            if isinstance(share, bool) or not 0 <= share <= 1:
                raise InvalidInputError(
                    f"{name} is {share!r}, but must be a share from 0 to 1.", field=name
                )
        for name, count in (
            ("min_fit_clients", min_fit_clients),
            ("min_eval_clients", min_eval_clients),
        ):
            if count > min_clients:
                raise InvalidInputError(
                    f"{name} is {count}, but a run begins with min_clients {min_clients}; set "
                    f"min_clients to {count} or more.",
                    field=name,
                )
        self.quorum = Quorum(
            min_available=min_clients,
            fraction_fit=fraction_fit,
            min_fit=min_fit_clients,
            fraction_evaluate=fraction_eval,
            min_evaluate=min_eval_clients,
        )
        self.model: NetworkModel | None = None
        self.model_config: dict[str, Any] | None = None

    def create_model(self, model_config: Mapping[str, Any]) -> NetworkModel:
        """The federation's model, from ``{"architecture": "neural_network", "layers": [...]}``.

        Its input size is found at the first client's data. Optional besides: ``learning_rate``,
        ``optimizer`` (adam or sgd) and ``seed``.

        Raises:
            InvalidInputError: an unknown setting, layer or activation, with the nearest.
        """
        self.model = model_from(model_config)
        self.model_config = dict(model_config)
        return self.model

    def serve(self, rounds: int = 10, **options: Any) -> Any:
        """Run ``rounds`` rounds at an address and return their history; see ``FederatedServer``."""
        return self.server(rounds, **options).start()

    def server(self, rounds: int = 10, **options: Any) -> FederatedServer:
        """The server that runs this policy and model."""
        from .fl_server import FederatedServer

        return FederatedServer(
            strategy=self.strategy,
            min_clients=self.quorum.min_available,
            rounds=rounds,
            coordinator=self,
            **options,
        )

    def __repr__(self) -> str:
        layers = "no model" if self.model_config is None else "a model"
        return (
            f"{type(self).__name__}({self.strategy.name}, min_clients="
            f"{self.quorum.min_available}, {layers})"
        )


def model_from(model_config: Mapping[str, Any]) -> NetworkModel:
    """A new network of the configuration; see ``FederatedLearningCoordinator.create_model``.

    Raises:
        InvalidInputError: an unknown setting, layer or activation, with the nearest.
    """
    from .network_model import NetworkModel

    for key in model_config:
        if key not in _SETTINGS:
            close = nearest(str(key), _SETTINGS, most=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(_SETTINGS)}."
            raise InvalidInputError(f"A model has no {key!r}; {hint}", field=str(key))
    kind = model_config.get("architecture", "neural_network")
    if kind != "neural_network":
        raise InvalidInputError(
            f"{kind!r} is no architecture; use 'neural_network' with layers.", field="architecture"
        )
    if not isinstance(model_config.get("layers"), list | tuple):
        raise InvalidInputError(
            "The model needs layers, such as [{'type': 'dense', 'units': 1, 'activation': "
            "'sigmoid'}].",
            field="layers",
        )
    rest = {key: model_config[key] for key in _SETTINGS[2:] if key in model_config}
    return NetworkModel(model_config["layers"], **rest)


def model_text(model_config: Mapping[str, Any]) -> str:
    """The configuration as the clients get it: compact JSON."""
    return json.dumps(model_config, separators=(",", ":"))
