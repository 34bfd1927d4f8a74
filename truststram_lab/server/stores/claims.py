"""Idempotency keys: the first request claims one, a repetition gets the same answer.

A stored answer may hold a credential (an invitation), and credentials are stored as hashes
only. So an answer is sealed with a key that is derived from the caller's own token: who
cannot make the request cannot read its answer.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from dataclasses import dataclass

from sqlalchemy import Connection, Row, and_, delete, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from truststram_lab.exceptions import ConflictError, InvalidInputError

from .tables import idempotency_keys as keys

__all__ = ["KEPT_S", "Answer", "Claim", "InFlightError"]

#: how long an answer is kept, in seconds
KEPT_S = 86_400.0


class InFlightError(Exception):
    """The first request with this key is not answered yet; the sentence for the caller."""


@dataclass(frozen=True)
class Answer:
    """A response to give again."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True)
class Claim:
    """One caller's use of one key on one method and path."""

    principal_id: str
    method: str
    path: str
    key: str
    body_sha256: str
    instance: str
    token: str

    @property
    def _here(self) -> ColumnElement[bool]:
        return and_(
            keys.c.principal_id == self.principal_id,
            keys.c.method == self.method,
            keys.c.path == self.path,
            keys.c.key == self.key,
        )

    def take(self, connection: Connection) -> Answer | None:
        """None: the request is to be done now. An answer: it was done before.

        Raises:
            InvalidInputError: the key was used with another body.
            InFlightError: the first request is not answered yet.
            ConflictError: the first request was cut off after its change.
        """
        now = time.time()
        connection.execute(delete(keys).where(keys.c.created_at_s < now - KEPT_S))
        found = connection.execute(select(keys).where(self._here)).one_or_none()
        if found is not None:
            answer = self._look(found)
            if answer is not None:
                return answer
            connection.execute(delete(keys).where(self._here))
        connection.execute(
            insert(keys).values(
                principal_id=self.principal_id,
                method=self.method,
                path=self.path,
                key=self.key,
                body_sha256=self.body_sha256,
                instance=self.instance,
                applied=False,
                created_at_s=now,
            )
        )
        return None

    def _look(self, found: Row[tuple[object, ...]]) -> Answer | None:
        row = found._mapping
        if row["body_sha256"] != self.body_sha256:
            raise InvalidInputError(
                f"Idempotency-Key {self.key!r} was used for another body; take a fresh key.",
                field="Idempotency-Key",
            )
        if row["status"] is not None:
            return Answer(row["status"], row["content_type"], self._open(row["body"]))
        # One process owns the database, so another instance's request died with it.
        if row["instance"] == self.instance:
            raise InFlightError(
                f"The first request with Idempotency-Key {self.key!r} is still in flight; "
                "send it again in a moment."
            )
        if row["applied"]:
            raise ConflictError(
                f"The first request with Idempotency-Key {self.key!r} made its change, but its "
                "answer was lost in a restart; look at the result, then take a fresh key."
            )
        return None

    def mark_applied(self, connection: Connection) -> None:
        """Note, in the transaction of the change, that it was made."""
        connection.execute(update(keys).where(self._here).values(applied=True))

    def complete(self, connection: Connection, answer: Answer) -> None:
        """Keep the answer for repetitions."""
        connection.execute(
            update(keys)
            .where(self._here)
            .values(
                status=answer.status,
                content_type=answer.content_type,
                body=self._seal(answer.body),
            )
        )

    def release(self, connection: Connection) -> None:
        """Give up the claim: a repetition is a first request, unless a change was made."""
        connection.execute(delete(keys).where(self._here, keys.c.applied.is_(False)))
        connection.execute(update(keys).where(self._here).values(instance=""))

    def _secret(self) -> bytes:
        return hashlib.sha256(b"truststram-lab idempotency\0" + self.token.encode()).digest()

    def _seal(self, body: bytes) -> bytes:
        secret, nonce = self._secret(), os.urandom(16)
        hidden = _xor(body, hashlib.shake_256(secret + nonce).digest(len(body)))
        return nonce + hmac.digest(secret, nonce + hidden, "sha256") + hidden

    def _open(self, sealed: bytes) -> bytes:
        secret = self._secret()
        nonce, tag, hidden = sealed[:16], sealed[16:48], sealed[48:]
        if not hmac.compare_digest(tag, hmac.digest(secret, nonce + hidden, "sha256")):
            raise ConflictError(
                f"Idempotency-Key {self.key!r} was used with a credential that has been replaced; "
                "take a fresh key."
            )
        return _xor(hidden, hashlib.shake_256(secret + nonce).digest(len(hidden)))


def _xor(left: bytes, right: bytes) -> bytes:
    size = len(left)
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(size, "big")
