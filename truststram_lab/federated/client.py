"""One client of a federation, in both of the documented ways.

FederatedClient("client_1") or a subclass, .start("localhost:8080")     a server's address
FederatedClient(auth_token_provider=..., org_id=...)                    rounds over HTTPS
"""

from __future__ import annotations

import inspect
import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.personal import DITTO_LAMBDA

from . import personal
from .participation.policy import SitePolicy
from .participation.worker import ParticipationEvent

if TYPE_CHECKING:
    from .local_table import LocalTable
    from .network_model import NetworkModel
    from .rounds_side import RoundsSide

__all__ = ["FederatedClient"]

Weights = Any
TrainFunction = Callable[..., Any]


class FederatedClient:
    """A participant.

    Subclasses may have ``get_parameters(self)``, ``fit(self, parameters, config)`` and
    ``evaluate(self, parameters, config)``; without them the client trains ``self.model`` on the
    file ``data_path``. Everything runs in this process; only updates leave it.

    Args:
        client_id: the name at a server's address.
        data_path: a CSV file; read, and checked, at once.
        target_col: of the file; by default ``target``, else ``label``, else the last column.
        auth_token_provider: gives the access token of now, for rounds over HTTPS.
        org_id: the organisation; ``TRUSTSTRAM_ORG_ID``, ``EDGEML_ORG_ID`` or ``default``.
        api_base: the platform, with or without ``/api/v1``; by default the configured one, else
            the sandbox.
        device_identifier: of this device; by default ``TRUSTSTRAM_DEVICE_ID``, else a new UUID.
        platform: what kind of device it says it is.
        timeout: seconds to wait for an answer of the platform.
        policy: what this site insists on, whatever the federation asks.
        on_state: told of every state of a participation.

    Raises:
        InvalidInputError: neither or both ways were asked for, or the file cannot be used.
    """

    def __init__(
        self,
        client_id: str | None = None,
        data_path: str | Path | None = None,
        target_col: str | None = None,
        *,
        auth_token_provider: Callable[[], str] | None = None,
        org_id: str | None = None,
        api_base: str | None = None,
        device_identifier: str | None = None,
        platform: str | None = None,
        timeout: float = 30.0,
        policy: SitePolicy | None = None,
        on_state: Callable[[ParticipationEvent], None] | None = None,
    ) -> None:
        if (client_id is None) == (auth_token_provider is None):
            raise InvalidInputError(
                "A client has either a client_id, to start at a server's address, or an "
                "auth_token_provider, for rounds over HTTPS; give one of them.",
                field="client_id",
            )
        if not timeout > 0:
            raise InvalidInputError(
                f"timeout is {timeout!r}, but must be a positive number of seconds.",
                field="timeout",
            )
        self.client_id = client_id
        self.policy = policy or SitePolicy()
        self.on_state = on_state
        self._events: deque[ParticipationEvent] = deque(maxlen=1_000)
        self._model: NetworkModel | None = None
        self._model_config: dict[str, Any] | None = None
        self._data: LocalTable | None = None
        self._stop = threading.Event()
        self._rounds: RoundsSide | None = None
        if data_path is not None:
            self._data = _read(data_path, target_col, client_id)
        if auth_token_provider is not None:
            from .rounds_side import RoundsSide

            self._rounds = RoundsSide(
                auth_token_provider,
                org_id=org_id,
                api_base=api_base,
                device_identifier=device_identifier,
                platform=platform,
                timeout_s=timeout,
            )

    # What a subclass brings, and what stands for it.

    @property
    def events(self) -> list[ParticipationEvent]:
        """The newest states of this client's participations, oldest first."""
        return list(self._events)

    @property
    def model(self) -> Any:
        """The network to train: the federation's, or one that was set here.

        Raises:
            InvalidInputError: the federation sent none, and none was set.
        """
        if self._model is None:
            config = self._model_config or (self._default_model() if self._data else None)
            if config is None:
                raise InvalidInputError(
                    "The federation sent no model and none was set; make one with "
                    "FederatedLearningCoordinator(...).create_model(model_config), or set "
                    "self.model.",
                    field="model",
                )
            from .coordinator import model_from

            self._model = model_from(config)
        return self._model

    @model.setter
    def model(self, model: Any) -> None:
        self._model = model

    def get_parameters(self, config: Mapping[str, Any] | None = None) -> list[Any]:  # noqa: ARG002
        """The current weights, a list of arrays."""
        if self._data is not None and self.model.inputs is None:
            self.model.build(len(self._data.columns))
        weights: list[Any] = self.model.get_weights()
        return weights

    def fit(
        self, parameters: list[Any], config: Mapping[str, Any]
    ) -> tuple[list[Any], int, dict[str, Any]]:
        """Train from ``parameters``; returns the new ones, the rows trained on, and metrics."""
        data = self._own_data("fit")
        self.model.set_weights(parameters)
        history = self.model.fit(
            data.x, data.y, epochs=config["epochs"], batch_size=config["batch_size"]
        )
        metrics = {name: values[-1] for name, values in history.items()}
        return self.model.get_weights(), len(data.x), metrics

    def evaluate(
        self,
        parameters: list[Any],
        config: Mapping[str, Any],  # noqa: ARG002
    ) -> tuple[float, int, dict[str, Any]]:
        """Measure ``parameters`` on the rows held out; loss, rows and metrics."""
        data = self._own_data("evaluate")
        self.model.set_weights(parameters)
        loss, accuracy = self.model.evaluate(data.x_held_out, data.y_held_out)
        return loss, len(data.x_held_out), {"accuracy": accuracy}

    # At a server's address.

    def start(self, address: str | None = None, *, deadline_s: float = 60.0) -> None:
        """Take part at ``address`` until the server's rounds are over.

        The server may start later: this waits for it, up to ``deadline_s`` seconds.

        Args:
            address: ``host:port``; by default ``TRUSTSTRAM_FL_ADDRESS``, else localhost:8080.

        Raises:
            RequestTimeoutError: no server opened in time; the sentence says how to start one.
            ConflictError: another client of this name takes part.
        """
        if self.client_id is None:
            raise InvalidInputError(
                "This client takes part in rounds over HTTPS; call get_round_assignment, or give "
                "a client_id to start at a server's address.",
                field="client_id",
            )
        from .address_side import take_part

        take_part(self, address, deadline_s=deadline_s, stop=self._stop)

    def stop(self) -> None:
        """Leave: ``start`` returns, and nothing is sent afterwards."""
        self._stop.set()

    # Rounds over HTTPS.

    def register(self) -> str:
        """Make the device known, once; returns its id. Four fields are sent and no others."""
        return self._https().register()

    def get_round_assignment(self) -> dict[str, Any] | None:
        """The open round of this device, with ``round_id``; None only if there is none."""
        return self._https().get_round_assignment()

    def participate_in_round(
        self, round_id: str, local_train_fn: TrainFunction, format: str = "pytorch"
    ) -> dict[str, Any]:
        """Do a round: read its terms, pull the model, train, filter the change, send it.

        Args:
            round_id: of the assignment.
            local_train_fn: ``fn(state) -> (state, rows, metrics)`` on a dict of torch tensors, or
                ``fit(parameters, config)``; it runs here, and is not sent anywhere.
            format: ``pytorch`` hands out tensors, ``numpy`` arrays.

        Returns:
            The receipt: ``status``, ``round_id``, ``sha256``, ``duplicate``.

        Raises:
            NotFoundError: there is no such open round for this device.
            PermissionDeniedError: this site's policy declines it.
            UpdateRejectedError: the function returned something wrong; nothing was sent.
            RoundClosedError: the round takes no more updates.
        """
        return self._https().participate_in_round(
            round_id, local_train_fn, format, self.policy, self._note
        )

    def get_personalized_model(self) -> dict[str, Any] | None:
        """The personal model that this device uploaded last, as tensors with ``.metrics``; None
        if it never uploaded one (``upload_personalized_update`` does)."""
        return self._https().get_personalized_model()

    def upload_personalized_update(
        self, weights: Weights, metrics: Mapping[str, Any] | None = None
    ) -> None:
        """Keep this device's personal model, and its metrics, on the platform."""
        self._https().upload_personalized_update(weights, metrics)

    def get_privacy_budget(self, federation_id: str) -> dict[str, Any]:
        """What a federation has spent of its privacy budget: ``epsilon`` is what is spent.

        That is the platform's view. ``own`` is this computer's: a list of what its data sets
        that took part in the federation have spent, over all federations (see ``SiteSpent``);
        empty where none did. It is read here and sent nowhere.
        """
        return self._https().get_privacy_budget(federation_id)

    # On this computer alone.

    def train_ditto(
        self,
        global_model: Weights,
        personal_model: Weights,
        local_train_fn: TrainFunction,
        lambda_ditto: float = DITTO_LAMBDA,
    ) -> personal.DittoResult:
        """See ``personal.train_ditto``."""
        return personal.train_ditto(global_model, personal_model, local_train_fn, lambda_ditto)

    def train_fedper(
        self, model: Weights, head_layers: Iterable[str], local_train_fn: TrainFunction
    ) -> personal.FedPerResult:
        """See ``personal.train_fedper``."""
        return personal.train_fedper(model, head_layers, local_train_fn)

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._rounds is not None:
            self._rounds.close()

    def __repr__(self) -> str:
        if self._rounds is not None:
            return f"{type(self).__name__}({self._rounds!r})"
        return f"{type(self).__name__}({self.client_id!r})"

    def _https(self) -> RoundsSide:
        if self._rounds is None:
            raise InvalidInputError(
                "This client starts at a server's address; for rounds over HTTPS give it an "
                "auth_token_provider.",
                field="auth_token_provider",
            )
        return self._rounds

    def _note(self, event: ParticipationEvent) -> None:
        self._events.append(event)
        if self.on_state is not None:
            self.on_state(event)

    def _own_data(self, method: str) -> LocalTable:
        if self._data is None:
            raise InvalidInputError(
                f"This client has no data; give data_path=, or a subclass its own {method}.",
                field="data_path",
            )
        return self._data

    def _default_model(self) -> dict[str, Any]:
        assert self._data is not None
        last = (
            {"type": "dense", "units": 1, "activation": "sigmoid"}
            if self._data.classes == 2
            else {"type": "dense", "units": self._data.classes, "activation": "softmax"}
        )
        hidden = {"type": "dense", "units": 64, "activation": "relu"}
        return {"layers": [hidden, last], "learning_rate": 0.01}

    def _learn_model(self, config: Mapping[str, Any]) -> None:
        """Take the model's configuration from a round's terms, the first time."""
        text = config.get("model_config")
        if self._model is None and self._model_config is None and isinstance(text, str):
            self._model_config = json.loads(text)

    def _parameters(self, config: Mapping[str, Any]) -> list[Any]:
        """``get_parameters``, with the configuration where it takes one."""
        takes = len(inspect.signature(self.get_parameters).parameters)
        found: list[Any] = self.get_parameters(config) if takes else self.get_parameters()
        return found


def _read(data_path: str | Path, target_col: str | None, who: str | None) -> LocalTable:
    from .local_table import read_csv_table

    table = read_csv_table(data_path, target_col)
    if target_col is None:
        sys.stdout.write(
            f"{who or 'client'}: predicts column {table.target!r} of {Path(data_path).name} from "
            f"{len(table.columns)} others; target_col= names another.\n"
        )
    return table
