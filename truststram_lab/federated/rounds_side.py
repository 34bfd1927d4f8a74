"""Rounds over HTTPS: a device with tokens of its own."""

from __future__ import annotations

import contextlib
import json
import platform as machine
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from truststram_lab.client.participants import ParticipantClient
from truststram_lab.client.places import device_place
from truststram_lab.config import apply_log_level, setting
from truststram_lab.exceptions import (
    AuthenticationError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    RoundClosedError,
    nearest,
)
from truststram_lab.learning import weights as files
from truststram_lab.schemas.federation import Assignment
from truststram_lab.schemas.privacy import PrivacyBudget

from .joined_data import federations_at, joined_data
from .participation.files import device_name
from .participation.forms import ARRAYS, TENSORS, take_weights
from .participation.functions import adapt, read_metrics
from .participation.machine import Patience
from .participation.outbox import Outbox, outbox_folder
from .participation.performing import SiteWork
from .participation.policy import SitePolicy
from .participation.terms import terms_of
from .participation.worker import ParticipationEvent, Worker
from .site_spending import SiteSpending

__all__ = ["PersonalModel", "RoundsSide"]

_FORMATS = {"pytorch": TENSORS, "numpy": ARRAYS}
#: Seconds of pauses after which a call of a round gives up on a silent platform.
_OUTAGE_S = 60.0


class PersonalModel(dict[str, Any]):
    """A personal model's weights, by name; ``metrics`` came with it, ``version`` is its digest."""

    metrics: dict[str, float]
    version: str


class RoundsSide:
    """See ``FederatedClient``."""

    def __init__(
        self,
        token_provider: Callable[[], str],
        *,
        org_id: str | None,
        api_base: str | None,
        device_identifier: str | None,
        platform: str | None,
        timeout_s: float,
    ) -> None:
        if not callable(token_provider):
            raise InvalidInputError(
                "auth_token_provider is called for the token of now; pass a function, such as "
                "lambda: token.",
                field="auth_token_provider",
            )
        apply_log_level()
        self._token_provider = token_provider
        self.org_id = str(setting("ORG_ID", org_id, "default").value)
        chosen = setting("DEVICE_ID", device_identifier).value
        self.device_identifier = str(chosen or f"client-{uuid.uuid4()}")
        # A made-up identifier is another after every restart, and this computer stays the same.
        self._device = str(chosen) if chosen else device_name()
        self.platform = str(setting("PLATFORM", platform, "python").value)
        self._timeout_s = timeout_s
        self._target, self.place = device_place(api_base)
        self._port: ParticipantClient | None = None
        self._token: str | None = None
        self._device_id: str | None = None
        #: what registration sent, field by field
        self.sent_log: list[dict[str, str]] = []

    def register(self) -> str:
        """See ``FederatedClient``."""
        if self._device_id is None:
            fields = {
                "device_identifier": self.device_identifier,
                "org_id": self.org_id,
                "platform": self.platform,
                "os_version": f"{machine.system()} {machine.release()}",
            }
            device = self._connection().register(**fields)
            self.sent_log.append(fields)
            self._device_id = device.id
        return self._device_id

    def get_round_assignment(self) -> dict[str, Any] | None:
        """See ``FederatedClient``."""
        for assignment in self._connection().assignments(0):
            found = assignment.model_dump()
            return {**found, "id": assignment.round_id, "config": dict(terms_of(assignment).config)}
        return None

    def participate_in_round(
        self,
        round_id: str,
        train: Callable[..., Any],
        format: str,
        policy: SitePolicy,
        note: Callable[[ParticipationEvent], None],
    ) -> dict[str, Any]:
        """See ``FederatedClient``."""
        if format not in _FORMATS:
            close = nearest(str(format), _FORMATS, most=1) or list(_FORMATS)
            raise InvalidInputError(
                f"{format!r} is no format of weights; use {' or '.join(map(repr, close))}.",
                field="format",
            )
        training = adapt(train) if format == "pytorch" else adapt(train, _FORMATS[format])
        port = self._connection()
        last: list[ParticipationEvent] = []

        def noted(event: ParticipationEvent) -> None:
            last[:] = [event]
            note(event)

        folder = outbox_folder(self.place, self.org_id, self.device_identifier)
        with Outbox(folder, f"device {self.device_identifier!r}") as outbox:
            assignment = self._assignment(port, round_id, outbox)
            worker = Worker(
                port,
                outbox,
                SiteWork(training, policy=policy),
                name=self.device_identifier,
                patience=Patience(outage_s=_OUTAGE_S),
                on_state=noted,
            )
            receipt = worker.do(assignment)
        if receipt is not None:
            return receipt.model_dump()
        said = last[-1].detail if last and last[-1].detail else "The round was sent before."
        if last and last[-1].state == "declined_policy":
            raise PermissionDeniedError(said)
        raise RoundClosedError(said)

    def get_personalized_model(self) -> PersonalModel | None:
        """See ``FederatedClient``."""
        try:
            body = self._connection().personalized(self.device_identifier)
        except NotFoundError:
            return None
        state, metadata = files.decode(body)
        found = PersonalModel(TENSORS.give(state))
        found.metrics = read_metrics(json.loads(metadata.get("metrics", "{}")), "the platform")
        found.version = files.sha256_hex(body)
        return found

    def upload_personalized_update(
        self, weights: Any, metrics: Mapping[str, Any] | None = None
    ) -> None:
        """See ``FederatedClient``."""
        state, _ = take_weights(weights)
        told = read_metrics(metrics, "upload_personalized_update")
        body = files.encode(state, {"metrics": json.dumps(told)})
        self._connection().upload_personalized(self.device_identifier, body)

    def get_privacy_budget(self, federation_id: str) -> dict[str, Any]:
        """See ``FederatedClient``."""
        found = self._connection().privacy(federation_id)
        own = [
            spent.model_dump()
            for data in joined_data(self.place, self._joined_as(federation_id, found))
            for spent in SiteSpending(data.sha256, data.rows).all_spent()
        ]
        return {**found.model_dump(), "own": own}

    def _joined_as(self, federation: str, found: PrivacyBudget) -> str:
        """The name under which this computer joined a federation, which may be named by its id."""
        names = federations_at(self.place)
        if federation != found.federation_id or federation in names:
            return federation
        for name in names:
            with contextlib.suppress(NotFoundError, PermissionDeniedError):  # another's
                if self._connection().privacy(name).federation_id == federation:
                    return name
        return federation

    def close(self) -> None:
        """End the connection."""
        if self._port is not None:
            self._port.close()
            self._port = None

    def __repr__(self) -> str:
        return f"device {self.device_identifier!r}, organisation {self.org_id!r}"

    def _connection(self) -> ParticipantClient:
        """A connection with the token of now: a refreshed one opens a new connection."""
        token = self._token_provider()
        if not isinstance(token, str) or not token:
            raise AuthenticationError(
                "auth_token_provider gave no token; bootstrap the device first, or let the "
                "provider return its access token."
            )
        if self._port is None or token != self._token:
            self.close()
            self._port = ParticipantClient(self._target, token, timeout_s=self._timeout_s)
            self._port.device = self._device
            self._token = token
        return self._port

    @staticmethod
    def _assignment(port: ParticipantClient, round_id: str, outbox: Outbox) -> Assignment:
        found = port.assignments(0)
        for assignment in found:
            if assignment.round_id == round_id:
                return assignment
        if outbox.is_sent(round_id):
            raise RoundClosedError(
                f"This device's update of round {round_id} was taken already; ask for the next "
                "with get_round_assignment."
            )
        open_rounds = [assignment.round_id for assignment in found]
        hint = (
            f"the open one is {open_rounds[0]!r}."
            if open_rounds
            else "no round is open for it now."
        )
        raise NotFoundError(
            f"There is no open round {round_id!r} for this device; {hint}",
            name=round_id,
            choices=open_rounds[:3],
        )
