"""A client at a server's address: find it, enter under a name, take part, leave when it is over."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from truststram_lab.client.federation import Federations
from truststram_lab.client.participants import ParticipantClient
from truststram_lab.exceptions import (
    AuthenticationError,
    ConflictError,
    RequestTimeoutError,
    TrustStramException,
)
from truststram_lab.learning.weights import State
from truststram_lab.sandbox.process import ask, is_alive
from truststram_lab.sandbox.state import SandboxState, read_state
from truststram_lab.transport import SyncDriver, Target
from truststram_lab.transport.drivers import HttpDriver

from .addresses import Address, Notice, parse_address, read_notice
from .participation.files import device_name
from .participation.forms import take_weights
from .participation.functions import (
    Evaluated,
    Trained,
    Training,
    adapt,
    call_evaluation,
)
from .participation.outbox import Outbox, outbox_folder
from .participation.performing import SiteWork
from .participation.terms import Terms
from .participation.worker import Worker

if TYPE_CHECKING:
    from .client import FederatedClient

__all__ = ["take_part"]

#: Pauses while the server is not there yet, in seconds.
_FIRST_LOOK_S, _LOOK_EVERY_S = 0.05, 1.0
#: A run that goes on elsewhere: how long a silent platform is waited for, in seconds.
_GONE_S = 120.0


def take_part(
    client: FederatedClient, text: str | None, *, deadline_s: float, stop: threading.Event
) -> None:
    """See ``FederatedClient.start``."""
    address = parse_address(text)
    name = str(client.client_id)
    folder = outbox_folder(str(address), "federation", name)
    # The name is taken before the server is asked: a second one must not get a credential.
    with Outbox(folder, f"client {name!r}") as outbox:
        entry = _enter(address, name, deadline_s, stop)
        if entry is None:
            return
        if entry.notice is not None and entry.notice.model is not None:
            client._model_config = client._model_config or entry.notice.model
        worker = Worker(
            entry.port,
            outbox,
            _work(client),
            name=name,
            on_state=client._note,
            is_over=_Ending(address, entry, name),
            stop=stop,
        )
        worker.run()


@dataclass(frozen=True, eq=False)
class _Entry:
    """An open connection; ``notice`` and ``state`` are those of a server of this user."""

    port: ParticipantClient
    notice: Notice | None = None
    state: SandboxState | None = None


def _enter(address: Address, name: str, deadline_s: float, stop: threading.Event) -> _Entry | None:
    """Wait until the server is open and enter under ``name``; None when told to stop."""
    token = os.environ.get("TRUSTSTRAM_FL_TOKEN")
    deadline = time.monotonic() + deadline_s
    pause = _FIRST_LOOK_S
    while True:
        if token:
            found = _with_token(address, token)
        elif address.local:
            found = _as_the_user(address, name)
        else:
            raise AuthenticationError(
                f"{address} is another computer, which knows no client of this one; set "
                f"TRUSTSTRAM_FL_TOKEN to the token of {name!r}'s invitation."
            )
        if found is not None:
            return found
        left = deadline - time.monotonic()
        if left <= 0:
            raise RequestTimeoutError(
                f"No federated server opened at {address} within {deadline_s:g} s; start one with "
                f'FederatedServer(min_clients=3, rounds=10, address="{address}").start(), or give '
                "its address."
            )
        if stop.wait(min(pause, left)):
            return None
        pause = min(pause * 2, _LOOK_EVERY_S)


def _with_token(address: Address, token: str) -> _Entry | None:
    port = ParticipantClient(Target(address.url, token), token)
    port.device = device_name()
    try:
        port.assignments(0)
    except (AuthenticationError, ConflictError):
        port.close()
        raise
    except TrustStramException:  # not open yet, or busy: it is asked again until the deadline
        port.close()
        return None
    return _Entry(port)


def _as_the_user(address: Address, name: str) -> _Entry | None:
    notice, state = read_notice(address.folder), read_state(address.folder)
    if notice is None or state is None or notice.status != "open":
        return None
    if not is_alive(notice.server_pid) or ask(state) != "ours":
        return None
    target = Target(state.url, state.api_key, state.protocol)
    driver = HttpDriver(target)
    try:
        owner: Federations[SyncDriver] = Federations(driver)
        [invitation] = owner.invite(notice.federation, [name])
    finally:
        driver.close()
    return _Entry(ParticipantClient(target, invitation.token), notice, state)


class _Ending:
    """Whether nothing more will come for a client.

    A server of this user says so in its notice. Another platform's run has no end that a client
    could see but its silence.
    """

    def __init__(self, address: Address, entry: _Entry, name: str) -> None:
        self._address, self._entry, self._name = address, entry, name
        self._silent_since: float | None = None

    def __call__(self, fault: TrustStramException | None) -> bool:
        entered = self._entry.notice
        if entered is not None:
            now = read_notice(self._address.folder)
            ended = now is None or now.run != entered.run or now.status != "open"
            return ended or not is_alive(entered.server_pid)
        if fault is None:
            self._silent_since = None
            return False
        now_s = time.monotonic()
        self._silent_since = self._silent_since or now_s
        if now_s - self._silent_since > _GONE_S:
            raise fault
        return False


def _work(client: FederatedClient) -> SiteWork:
    return SiteWork(
        _ClientTraining(client),
        evaluate=lambda base, terms: _evaluate(client, base, terms),
        initial=lambda: _initial(client),
        policy=client.policy,
    )


@dataclass(frozen=True, eq=False)
class _ClientTraining:
    """The client's ``fit``, after the model's configuration has arrived."""

    client: FederatedClient
    _adapted: list[Training] = field(default_factory=list)

    @property
    def module(self) -> None:
        return None

    def __call__(self, base: State, config: Mapping[str, Any]) -> Trained:
        self.client._learn_model(config)
        if not self._adapted:
            self._adapted.append(adapt(self.client.fit))
        return self._adapted[0](base, config)


def _evaluate(client: FederatedClient, base: State, terms: Terms) -> Evaluated:
    client._learn_model(terms.config)
    return call_evaluation(client.evaluate, base, terms.config)


def _initial(client: FederatedClient) -> State:
    """The first client's parameters; a model of the house that has seen no data yet is asked
    for its first weights by letting ``fit`` begin."""
    from .network_model import NetworkModel

    model = client._model if client._model_config is None else client.model
    if isinstance(model, NetworkModel) and model.inputs is None and client._data is None:
        model.first_weights(lambda: client.fit([], {"epochs": 1, "batch_size": 32}))
    state, _ = take_weights(client._parameters({}), "get_parameters")
    return state
