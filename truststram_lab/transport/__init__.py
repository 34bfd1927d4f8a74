"""How a call travels: declared once, driven by an engine without I/O, sent by two drivers.

The drivers (``transport.drivers``) load the HTTP library and are imported where they are
used; everything here is light.
"""

from .calls import AsyncDriver, Call, Resource, Response, SyncDriver, call
from .targets import Target, TargetProvider, Targets, normal_url

__all__ = [
    "AsyncDriver",
    "Call",
    "Resource",
    "Response",
    "SyncDriver",
    "Target",
    "TargetProvider",
    "Targets",
    "call",
    "normal_url",
]
