"""What an owner's data sets have spent, kept by the owner: it outlives kernels and platforms.

    TRUSTSTRAM_HOME/ledger/<data set>.<unit>.<adjacency>.json

Epsilon is reserved here, on disk, before the noise is drawn. A process that dies afterwards
leaves a reservation, which counts. The same round asked for again, after a stop, finds its
reservation and is not charged twice: of one round only one update ever leaves, because it is
stored before it is sent.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from truststram_lab import config
from truststram_lab.exceptions import ConfigurationError
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.learning.privacy.ledger import Decision, Ledger
from truststram_lab.schemas.privacy import Budget, BudgetEntry, BudgetKey, EntryKind, GaussianUse

from .participation.files import private_folder, write_whole

__all__ = ["OwnerLedger"]

#: Without a limit of the owner's everything fits; what is spent is composed all the same.
_NO_LIMIT = 1e9


class OwnerLedger:
    """The ledger of one data set, unit and adjacency; safe beside other kernels of the owner.

    Args:
        key: whose budget.
        folder: ``TRUSTSTRAM_HOME/ledger`` by default.
    """

    def __init__(self, key: BudgetKey, folder: Path | None = None) -> None:
        self.key = key
        self._folder = folder or config.home() / "ledger"
        name = f"{key.dataset_sha256}.{key.unit}.{key.adjacency}"
        self._path = self._folder / f"{name}.json"
        self._lock = self._folder / f"{name}.lock"

    @property
    def limit(self) -> Budget | None:
        """The most that may ever be spent on the data set; None where the owner set none."""
        return self._read()[0]

    def entries(self) -> tuple[BudgetEntry, ...]:
        """Everything that was ever reserved, in order."""
        return self._read()[1]

    def set_limit(self, budget: Budget) -> None:
        """Set, raise or lower the limit; what is spent stays spent."""
        with self._held():
            self._write(budget, self._read()[1])

    def spent(self, delta: float, *, but: str = "") -> float:
        """Epsilon of all entries at ``delta``, composed; without those whose id starts with
        ``but``, where given. 0 for none, infinity where a release had no noise."""
        return account(_uses(self.entries(), but), delta).epsilon

    def spent_by(self, prefix: str, delta: float) -> float:
        """Epsilon of the entries whose id starts with ``prefix``."""
        mine = [entry for entry in self.entries() if entry.id.startswith(prefix)]
        return account(_uses(mine), delta).epsilon

    def uses_of(self, prefix: str) -> list[GaussianUse]:
        """What the entries whose id starts with ``prefix`` released."""
        return _uses([entry for entry in self.entries() if entry.id.startswith(prefix)])

    def consider(
        self,
        uses: Sequence[GaussianUse],
        delta: float,
        *,
        but: str = "",
        limit: Budget | None = None,
    ) -> Decision:
        """Whether ``uses`` fit under the limit, beside everything but the entries of ``but``.

        ``limit`` is one to try; None is the stored one.
        """
        stored, entries = self._read()
        limit = limit or stored
        others = tuple(entry for entry in entries if not (but and entry.id.startswith(but)))
        return self._ledger(limit, others, delta).consider(uses)

    def reserve(
        self,
        entry_id: str,
        purpose: str,
        uses: Sequence[GaussianUse],
        delta: float,
        kind: EntryKind | None = None,
    ) -> None:
        """Take the epsilon of ``uses`` before their noise is drawn; on disk when this returns.

        Again with the same arguments it changes nothing.

        Raises:
            PrivacyBudgetError: they do not fit under the limit; the sentence has the numbers.
            ConflictError: the id is taken by something else.
        """
        with self._held():
            limit, entries = self._read()
            ledger = self._ledger(limit, entries, delta)
            self._write(limit, ledger.reserve(entry_id, purpose, uses, kind).entries)

    def release(self, entry_id: str) -> None:
        """Note that what was reserved has left; again it changes nothing."""
        with self._held():
            limit, entries = self._read()
            ledger = self._ledger(limit, entries, 0.5)  # moves an entry; accounts nothing
            self._write(limit, ledger.release(entry_id).entries)

    def _ledger(
        self, limit: Budget | None, entries: tuple[BudgetEntry, ...], delta: float
    ) -> Ledger:
        return Ledger(self.key, limit or Budget(epsilon=_NO_LIMIT, delta=delta), entries)

    def _read(self) -> tuple[Budget | None, tuple[BudgetEntry, ...]]:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None, ()
        try:
            found = json.loads(content)
            limit = None if found["limit"] is None else Budget.model_validate(found["limit"])
            entries = tuple(BudgetEntry.model_validate(entry) for entry in found["entries"])
        except (ValueError, KeyError, TypeError, ValidationError):
            raise ConfigurationError(
                f"The privacy ledger {self._path} is damaged, and without it nobody knows what "
                "was spent on this data; restore the file from a backup."
            ) from None
        return limit, entries

    def _write(self, limit: Budget | None, entries: Sequence[BudgetEntry]) -> None:
        found = {
            "key": self.key.model_dump(mode="json"),
            "limit": None if limit is None else limit.model_dump(mode="json"),
            "entries": [entry.model_dump(mode="json") for entry in entries],
        }
        write_whole(self._path, json.dumps(found, indent=1).encode())

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """One change at a time, whichever process makes it; the lock falls with its holder."""
        private_folder(self._folder)
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _uses(entries: Sequence[BudgetEntry], but: str = "") -> list[GaussianUse]:
    """What counts of ``entries``; equal rounds are one use of many steps, which is the same."""
    steps: dict[tuple[float, float], int] = {}
    for entry in entries:
        if entry.state == "returned" or (but and entry.id.startswith(but)):
            continue
        for use in entry.uses:
            kind = use.noise_multiplier, use.sample_rate
            steps[kind] = steps.get(kind, 0) + use.steps
    return [
        GaussianUse(noise_multiplier=noise, sample_rate=rate, steps=number)
        for (noise, rate), number in steps.items()
    ]
