"""Events to send, written in the transaction of the change they tell about.

An event exists exactly if its change does, and the numbers of a stream have no gaps: the
counter is a row that the transaction itself updates.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, insert, select, update

from .tables import events, streams

__all__ = ["ORGANISATION_STREAM", "append", "last_sequence", "run_stream", "site_topic", "wake"]

#: the stream of everything in the organisation
ORGANISATION_STREAM = "org"

# Built once: putting a statement together costs more than running it.
_NEXT = (
    update(streams)
    .where(
        streams.c.organisation_id == bindparam("organisation"), streams.c.name == bindparam("at")
    )
    .values(last_sequence=streams.c.last_sequence + 1)
    .returning(streams.c.last_sequence)
)
_FIRST = insert(streams)
_EVENT = insert(events)


def run_stream(run_id: str) -> str:
    """The name of a run's own stream."""
    return f"run:{run_id}"


def append(
    connection: Connection,
    organisation_id: str,
    stream: str,
    kind: str,
    data: Mapping[str, object],
    now: str,
) -> int:
    """Add an event of type ``kind`` to ``stream``; returns its number (1, 2, 3, ...).

    Use it inside ``engine.writing``, which wakes the stream's readers after the commit.
    """
    sequence = connection.execute(
        _NEXT, {"organisation": organisation_id, "at": stream}
    ).scalar_one_or_none()
    if sequence is None:
        sequence = 1
        connection.execute(
            _FIRST,
            {"organisation_id": organisation_id, "name": stream, "last_sequence": sequence},
        )
    connection.execute(
        _EVENT,
        {
            "organisation_id": organisation_id,
            "stream": stream,
            "sequence": sequence,
            "type": kind,
            "data": dict(data),
            "created_at": now,
        },
    )
    connection.info.setdefault("streams", set()).add((organisation_id, stream))
    return int(sequence)


def last_sequence(connection: Connection, organisation_id: str, stream: str) -> int:
    """The number of the stream's newest event, 0 if it has none."""
    found = connection.execute(
        select(streams.c.last_sequence).where(
            streams.c.organisation_id == organisation_id, streams.c.name == stream
        )
    ).scalar_one_or_none()
    return int(found or 0)


def wake(connection: Connection, organisation_id: str, topic: str) -> None:
    """Wake who waits for ``topic`` after the commit, without an event (a site's new work)."""
    connection.info.setdefault("streams", set()).add((organisation_id, topic))


def site_topic(principal_id: str) -> str:
    """What a site waits for that has nothing to do."""
    return f"site:{principal_id}"
