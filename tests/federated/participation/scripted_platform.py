"""A platform in memory that keeps the real one's rules, for faults on a script."""

from __future__ import annotations

import hashlib

from truststram_lab.exceptions import ConflictError, NotFoundError, RoundClosedError
from truststram_lab.schemas.federation import Assignment, LocalTraining, UpdateReceipt
from truststram_lab.schemas.registry import Architecture, DenseLayer
from truststram_lab.schemas.tables import Column, Signature

SIGNATURE = Signature(
    columns=[Column(name="dose", kind="numeric")], target="ill", classes=["no", "yes"]
)


def assignment(number: int, rounds: int = 3, run: str = "run_1", **more) -> Assignment:
    given = {
        "round_id": f"{run}_rnd_{number}",
        "run_id": run,
        "run": "icu-1",
        "kind": "training",
        "number": number,
        "rounds": rounds,
        "status": "open",
        "model_sha256": "0" * 64,
        "statistics": None,
        "signature": SIGNATURE,
        "architecture": Architecture(inputs=1, layers=[DenseLayer(units=1)]),
        "local": LocalTraining(),
        "seed": 0,
        "min_site_rows": 5,
    }
    return Assignment(**{**given, **more})


class ScriptedPlatform:
    """One site, ``rounds`` rounds; every body that arrived is remembered, refused ones too."""

    def __init__(self, rounds: int = 3) -> None:
        self.rounds = rounds
        self.current = 1
        self.stopped = False
        self.accepted: dict[str, str] = {}
        self.arrived: dict[str, set[str]] = {}
        self.told: list[tuple[str, str]] = []
        self.known: list[str | None] = []

    @property
    def over(self) -> bool:
        return self.current > self.rounds

    def assignments(self, wait_s: float, known: str | None = None) -> list[Assignment]:
        self.known.append(known)
        if self.over or self.stopped:
            return []
        return [assignment(self.current, self.rounds)]

    def model(self, round_id: str) -> bytes:
        return round_id.encode()

    def plan(self, sha256: str):
        raise NotFoundError(f"There is no plan {sha256!r}.")

    def push(self, round_id: str, body: bytes) -> UpdateReceipt:
        digest = hashlib.sha256(body).hexdigest()
        self.arrived.setdefault(round_id, set()).add(digest)
        former = self.accepted.get(round_id)
        if former == digest:
            return UpdateReceipt(round_id=round_id, sha256=digest, duplicate=True)
        if self.stopped:
            raise RoundClosedError("Run icu-1 is stopped; resume it to go on.")
        if self.over or round_id != assignment(self.current).round_id:
            raise RoundClosedError("The round is closed; ask for the assignments again.")
        if former is not None:
            raise ConflictError("The site gave another update before.")
        self.accepted[round_id] = digest
        self.current += 1
        return UpdateReceipt(round_id=round_id, sha256=digest)

    def state(self, round_id: str, update) -> None:
        self.told.append((round_id, update.state))

    def close(self) -> None:
        pass
