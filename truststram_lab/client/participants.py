"""The side of a participant: its own connection, its own credential, its own byte count."""

from __future__ import annotations

from typing import Self

from truststram_lab.exceptions import PlatformError
from truststram_lab.schemas.accounts import Device, DeviceRegistration
from truststram_lab.schemas.federation import Assignment, UpdateReceipt
from truststram_lab.transport import (
    Call,
    Resource,
    Response,
    SyncDriver,
    Target,
    TargetProvider,
    call,
)
from truststram_lab.transport.bodies import content_digest
from truststram_lab.transport.drivers import HttpDriver
from truststram_lab.transport.traffic import Traffic

from .refs import segment

__all__ = ["ParticipantClient"]

#: how much longer than the asked time a long poll may take
_POLL_SLACK_S = 20.0
_TRANSFER_S = 120.0


class ParticipantClient(Resource[SyncDriver]):
    """One site of a federation, as the platform sees it.

    Args:
        target: where the platform is: a Target, or a client's ``target``, which also finds
            it again after a restart. Its credential is not used.
        token: the site's own, from its invitation.
    """

    def __init__(self, target: TargetProvider, token: str) -> None:
        def as_site(*, failed: bool = False) -> Target:
            found = target(failed=failed)
            return Target(found.base_url, token, found.protocol)

        self._http = HttpDriver(as_site)
        super().__init__(self._http)

    @call
    def register(self, device_identifier: str) -> Call[Device]:
        """Make the site known by this identifier; discloses the four documented fields."""
        body = DeviceRegistration(device_identifier=device_identifier)
        return Call("POST", "/api/v1/devices/register", Device, json=body)

    @call
    def assignments(self, wait_s: float = 0) -> Call[list[Assignment]]:
        """What to do now; waits up to ``wait_s`` (0 to 30) seconds for work to appear."""
        return Call(
            "GET",
            "/api/v1/training/rounds",
            list[Assignment],
            query={"wait_s": wait_s},
            timeout_s=wait_s + _POLL_SLACK_S,
        )

    @call
    def model(self, round_id: str) -> Call[bytes]:
        """The global weights of a round, a safetensors file, verified by its digest."""
        path = f"{_round_path(round_id)}/model"
        return Call("GET", path, Response, timeout_s=_TRANSFER_S, unwrap=_digested)

    @call
    def push(self, round_id: str, body: bytes) -> Call[UpdateReceipt]:
        """Hand in the site's update, a safetensors file.

        Pushing the same bytes again is harmless and says ``duplicate``.

        Raises:
            RoundClosedError: the round takes no more updates.
            ConflictError: the site pushed other bytes in this round.
            UpdateRejectedError: wrong names, shapes, types or values; nothing was stored.
        """
        return Call(
            "PUT",
            f"{_round_path(round_id)}/update",
            UpdateReceipt,
            content=body,
            headers={"content-digest": content_digest(body)},
            timeout_s=_TRANSFER_S,
            # The platform knows an update by its digest, so it needs no second key.
            idempotency_key="",
            repeatable=True,
        )

    @property
    def traffic(self) -> Traffic:
        """Bytes at this site's sockets."""
        return self._http.traffic

    def close(self) -> None:
        """End the connection, also under a call that waits in another thread."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ParticipantClient({self.traffic!r})"


def _round_path(round_id: str) -> str:
    return f"/api/v1/training/rounds/{segment(round_id, 'a round')}"


def _digested(response: Response) -> bytes:
    # The engine has compared the digest if there was one.
    if "sha-256=" not in response.headers.get("content-digest", "").lower():
        raise PlatformError(
            "The platform sent a model without its Content-Digest; upgrade the platform."
        )
    return response.body
