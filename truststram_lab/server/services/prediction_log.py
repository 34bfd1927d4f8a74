"""Who asked which version when, and how it was answered."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.exc import SQLAlchemyError

from truststram_lab.exceptions import NotFoundError
from truststram_lab.schemas.base import Page
from truststram_lab.schemas.serving import Latency, PredictionRecord, Traffic
from truststram_lab.server.stores.engine import reading
from truststram_lab.server.stores.ids import timestamp
from truststram_lab.server.stores.journal import Journal
from truststram_lab.server.stores.prediction_log import PredictionStore, predictions

from .paging import page

__all__ = ["Answered", "PredictionLog"]

log = logging.getLogger(__name__)

#: seconds between two batches
_BATCH_S = 1.0

#: answers whose latencies are looked at
_LATENCIES = 10_000

#: batches between two looks at what is too old
_BATCHES_A_PRUNE = 600


#: a text as JSON in ASCII
_quoted = json.encoder.encode_basestring_ascii


@dataclass(frozen=True)
class Answered:
    """One request that a version answered, be it with an error.

    Args:
        id: of the prediction; of several rows it is what their ids have in common.
        name: as it was asked: a deployment, or a version.
        caller: the principal's label.
        answers, data: JSON texts, where the deployment's owner has them kept.
    """

    id: str
    organisation_id: str
    name: str
    model: str
    version: int
    caller: str
    status: int
    rows: int
    latency_ms: float
    answers: bytes | None = None
    data: bytes | None = None


class PredictionLog:
    """Keeps a line before a request is answered, and a row within a second or so.

    The line survives the end of this process; the row, with its whole batch, a power cut.

    Args:
        home: the platform's folder.
        keep_days: age at which an entry is removed, in days; 0 keeps all.
        now: instant in UTC.
    """

    def __init__(
        self,
        home: Path,
        keep_days: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._journal = Journal(home / "predictions")
        self._store = PredictionStore(home / "predictions.db")
        self._keep_days = keep_days
        self._now = now
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take over what a former process left, and from now on a batch a second."""
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The last batch."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        self._journal.close()
        self._store.close()

    def note(self, answered: Answered) -> None:
        """Keep an entry; it is in the journal on return.

        Raises:
            InsufficientResourcesError: the disk is full.
        """
        text = (
            f'{{"id":"{answered.id}","organisation_id":"{answered.organisation_id}",'
            f'"created_at":"{timestamp()}","name":{_quoted(answered.name)},'
            f'"model":{_quoted(answered.model)},"version":{answered.version},'
            f'"caller":{_quoted(answered.caller)},"status":{answered.status},'
            f'"rows":{answered.rows},"latency_ms":{answered.latency_ms:.3f}}}'
        ).encode()
        for key, value in (("answers", answered.answers), ("data", answered.data)):
            if value is not None:
                # JSON text may break its lines between values, and nowhere else.
                flat = value.replace(b"\r", b" ").replace(b"\n", b" ")
                text = b'%s,"%s":%s}' % (text[:-1], key.encode(), flat)
        self._journal.append(text)

    def page(
        self, organisation_id: str, *, limit: int, cursor: str | None, name: str | None = None
    ) -> Page[PredictionRecord]:
        """Entries up to this moment, newest first; ``name`` is whose."""
        self.take_over()
        query = select(predictions).where(predictions.c.organisation_id == organisation_id)
        if name is not None:
            query = query.where(predictions.c.name == name)
        with reading(self._store.engine) as connection:
            rows, following = page(connection, query, predictions, limit=limit, cursor=cursor)
        return Page[PredictionRecord](items=[_record(row) for row in rows], next_cursor=following)

    def get(self, organisation_id: str, id: str) -> PredictionRecord:
        """One entry.

        Args:
            id: as an answer has it; of several rows any of theirs.

        Raises:
            NotFoundError: there is none, or not any more.
        """
        self.take_over()
        row = self._store.find(organisation_id, id.partition(".")[0])
        if row is None:
            kept = f" (they are kept for {self._keep_days:g} days)" if self._keep_days else ""
            raise NotFoundError(f"There is no prediction {id[:80]!r} in the log{kept}.", name=id)
        return _record(row)

    def traffic(self, organisation_id: str, name: str, seconds: int) -> Traffic:
        """What a deployment was asked in the last ``seconds``."""
        self.take_over()
        now = self._now()
        since = (now - timedelta(seconds=seconds)).isoformat(timespec="microseconds")
        sums = self._store.since(organisation_id, name, since)
        took = self._store.latencies(organisation_id, name, since, _LATENCIES)
        minutes = self._store.per_minute(organisation_id, name, since)
        places = [now - timedelta(minutes=back) for back in reversed(range(-(-seconds // 60)))]
        latency = None
        if took:
            took.sort()
            p50, p95, p99 = (took[-(-len(took) * share // 100) - 1] for share in (50, 95, 99))
            latency = Latency(p50=p50, p95=p95, p99=p99)
        return Traffic(
            name=name,
            seconds=seconds,
            requests=sums.requests,
            failed=sums.failed,
            rows=sums.rows,
            latency_ms=latency,
            per_minute=[minutes.get(f"{place:%Y-%m-%dT%H:%M}", 0) for place in places],
        )

    def take_over(self) -> None:
        """Make durable what was noted until now."""
        with self._lock:
            for segment, lines in self._journal.taken():
                self._store.add([row for row in map(_row, lines) if row is not None])
                self._journal.discard(segment)

    def prune(self) -> int:
        """Remove what is older than it is kept; how many entries that were."""
        if not self._keep_days:
            return 0
        before = self._now() - timedelta(days=self._keep_days)
        return self._store.prune(before.isoformat(timespec="microseconds"))

    def _run(self) -> None:
        batches = 0
        while True:
            ending = self._end.wait(_BATCH_S if batches else 0.0)
            try:
                self.take_over()
                if batches % _BATCHES_A_PRUNE == 0 and (removed := self.prune()):
                    log.info("%d predictions were older than they are kept", removed)
            except (OSError, SQLAlchemyError):
                # The lines are still there, and the next batch takes them.
                log.exception("the log of predictions cannot be written")
            batches += 1
            if ending:
                return


_ABSENT = {"answers": None, "data": None}


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row: dict[str, Any] = {**_ABSENT, **json.loads(line)}
    except ValueError:
        # A damaged disk; what follows it must not wait for ever.
        log.error("a line of %d bytes in the log of predictions is damaged", len(line))
        return None
    for key in _ABSENT:
        if row[key] is not None:
            row[key] = json.dumps(row[key])
    return row


def _record(row: Row[Any]) -> PredictionRecord:
    return PredictionRecord.model_validate({**row._mapping})
