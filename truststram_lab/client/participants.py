"""The side of a participant: its own connection, its own credential, its own byte count."""

from __future__ import annotations

from typing import Self

from truststram_lab.exceptions import PlatformError
from truststram_lab.schemas.accounts import Device, DeviceRegistration
from truststram_lab.schemas.federation import Assignment, RoundPlan, UpdateReceipt
from truststram_lab.schemas.participation import ParticipationUpdate, SiteDescription
from truststram_lab.schemas.privacy import PrivacyBudget
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
_NEWS_S = 5.0


class ParticipantClient(Resource[SyncDriver]):
    """One site of a federation, as the platform sees it.

    Args:
        target: where the platform is: a Target, or a client's ``target``, which also finds
            it again after a restart. Its credential is not used.
        token: the site's own, from its invitation.
        timeout_s: seconds to wait for the start of an answer; transfers of models wait longer.
    """

    def __init__(self, target: TargetProvider, token: str, *, timeout_s: float = 30.0) -> None:
        self._timeout_s = timeout_s
        #: what this participant calls itself when it asks for work; the platform refuses another
        #: device under the same identity. None says nothing.
        self.device: str | None = None

        def as_site(*, failed: bool = False) -> Target:
            found = target(failed=failed)
            return Target(found.base_url, token, found.protocol)

        self._http = HttpDriver(as_site)
        super().__init__(self._http)

    @call
    def register(
        self,
        device_identifier: str,
        *,
        org_id: str = "default",
        platform: str = "python",
        os_version: str = "",
    ) -> Call[Device]:
        """Make the site known by this identifier; discloses these four fields and no others."""
        body = DeviceRegistration(
            device_identifier=device_identifier,
            org_id=org_id,
            platform=platform,
            os_version=os_version,
        )
        return Call(
            "POST", "/api/v1/devices/register", Device, json=body, timeout_s=self._timeout_s
        )

    @call
    def describe(self, federation: str, description: SiteDescription) -> Call[None]:
        """Tell the federation what the site's table looks like; replaces what it was told."""
        path = f"/api/v1/training/description/{segment(federation, 'a federation')}"
        return Call("PUT", path, None, json=description, timeout_s=self._timeout_s)

    @call
    def assignments(self, wait_s: float = 0, known: str | None = None) -> Call[list[Assignment]]:
        """What to do now; waits up to ``wait_s`` (0 to 30) seconds for work to appear.

        Args:
            known: the digest of a plan that this site has: an assignment of its run names it
                and does not repeat it.

        Raises:
            ConflictError: another device takes part under this identity; the sentence says which.
        """
        return Call(
            "GET",
            "/api/v1/training/rounds",
            list[Assignment],
            query={"wait_s": wait_s, "known": known},
            headers={} if self.device is None else {"TrustStram-Device": self.device},
            timeout_s=wait_s + max(_POLL_SLACK_S, self._timeout_s),
        )

    @call
    def model(self, round_id: str) -> Call[bytes]:
        """The global weights of a round, a safetensors file, verified by its digest."""
        path = f"{_round_path(round_id)}/model"
        return Call(
            "GET", path, Response, timeout_s=max(_TRANSFER_S, self._timeout_s), unwrap=_digested
        )

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
            timeout_s=max(_TRANSFER_S, self._timeout_s),
            # The platform knows an update by its digest, so it needs no second key.
            idempotency_key="",
            repeatable=True,
        )

    @call
    def plan(self, sha256: str) -> Call[RoundPlan]:
        """The constant part of a run's terms; the platform never changes what has this digest."""
        path = f"/api/v1/training/plans/{segment(sha256, 'a plan')}"
        return Call("GET", path, RoundPlan, timeout_s=self._timeout_s)

    @call
    def state(self, round_id: str, update: ParticipationUpdate) -> Call[None]:
        """Say how far the site is; only news, nothing depends on it."""
        path = f"{_round_path(round_id)}/state"
        return Call("POST", path, None, json=update, timeout_s=_NEWS_S)

    @call
    def personalized(self, name: str) -> Call[bytes]:
        """The personal model that was uploaded last, a safetensors file with its metrics.

        Raises:
            NotFoundError: there is none.
        """
        return Call(
            "GET",
            _personal_path(name),
            Response,
            timeout_s=max(_TRANSFER_S, self._timeout_s),
            unwrap=_digested,
        )

    @call
    def upload_personalized(self, name: str, body: bytes) -> Call[None]:
        """Replace the personal model by ``body``, a safetensors file with its metrics."""
        return Call(
            "PUT",
            _personal_path(name),
            None,
            content=body,
            headers={"content-digest": content_digest(body)},
            timeout_s=max(_TRANSFER_S, self._timeout_s),
            idempotency_key="",
            repeatable=True,
        )

    @call
    def privacy(self, federation: str) -> Call[PrivacyBudget]:
        """What a federation's rounds have spent of its privacy budget."""
        path = f"/api/v1/federations/{segment(federation, 'a federation')}/privacy"
        return Call("GET", path, PrivacyBudget, timeout_s=self._timeout_s)

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


def _personal_path(name: str) -> str:
    return f"/api/v1/training/personalized/{segment(name, 'a device')}"


def _digested(response: Response) -> bytes:
    # The engine has compared the digest if there was one.
    if "sha-256=" not in response.headers.get("content-digest", "").lower():
        raise PlatformError(
            "The platform sent a model without its Content-Digest; upgrade the platform."
        )
    return response.body
