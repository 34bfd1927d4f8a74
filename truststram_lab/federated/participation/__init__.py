"""A site's part in the rounds of a federation: what it does, when, and what survives a crash.

``machine`` decides without I/O, ``worker`` obeys on a thread, ``outbox`` keeps what is on its way.
"""

from __future__ import annotations

from .machine import Machine, Patience
from .outbox import Outbox, Parcel, outbox_folder
from .ports import Made, Performer, RoundsPort
from .terms import Terms, terms_of
from .worker import ParticipationEvent, Worker

__all__ = [
    "Machine",
    "Made",
    "Outbox",
    "Parcel",
    "ParticipationEvent",
    "Patience",
    "Performer",
    "RoundsPort",
    "Terms",
    "Worker",
    "outbox_folder",
    "terms_of",
]
