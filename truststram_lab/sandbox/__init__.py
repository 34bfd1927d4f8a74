"""The sandbox: one private platform process of this user, found again or started.

Every kernel and tool of the user shares it. It is a process of its own
(``python -m truststram_lab.server``); nothing of the platform is imported here.
"""

from .manager import ensure, reset, status, stop, target
from .state import SandboxState

__all__ = ["SandboxState", "ensure", "reset", "status", "stop", "target"]
