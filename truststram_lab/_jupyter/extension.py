"""What Jupyter Server loads: the addresses under its base URL."""

from __future__ import annotations

import re
from typing import Any

from jupyter_server.serverapp import ServerApp

from .proxy import ProxyHandler, Upstream
from .status import StartHandler, StatusHandler
from .tutorials import TutorialHandler, TutorialsHandler

__all__ = ["_load_jupyter_server_extension"]


def _load_jupyter_server_extension(serverapp: ServerApp) -> None:
    """Add the handlers; nothing is started and nobody is asked."""
    upstream = {"upstream": Upstream()}
    routes: list[tuple[str, type[Any], dict[str, Any]]] = [
        (r"status", StatusHandler, upstream),
        (r"start", StartHandler, upstream),
        (r"platform(/.*)?", ProxyHandler, upstream),
        (r"tutorials", TutorialsHandler, {}),
        (r"tutorials/([^/]+)", TutorialHandler, {}),
    ]
    # A base URL is text, whatever characters a user's name brings into it.
    root = re.escape(serverapp.base_url.rstrip("/"))
    handlers = [(f"{root}/truststram/{path}", *rest) for path, *rest in routes]
    serverapp.web_app.add_handlers(".*$", handlers)
