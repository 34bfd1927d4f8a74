"""The platform's log: one JSON object a line, and never a credential in it."""

from __future__ import annotations

import json
import logging
import os
import re
from logging.handlers import RotatingFileHandler
from pathlib import Path

from .stores.ids import timestamp

__all__ = ["JsonLines", "log_to"]

#: our tokens, wherever they turn up (a path, an exception's text)
_TOKEN = re.compile(r"\bts[ks]_[A-Za-z0-9_-]{8,}")

_KEPT_BYTES = 10_000_000


class JsonLines(logging.Formatter):
    """A record as one line of JSON; ``extra={"fields": {...}}`` adds keys."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "time": timestamp(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _TOKEN.sub("[token]", json.dumps(line, ensure_ascii=True, default=str))


class _Lines(RotatingFileHandler):
    """Asks the file how large it is, where the standard one writes every line twice to know."""

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: ARG002, N802
        """Whether the next line goes into a new file."""
        return self.stream is not None and os.fstat(self.stream.fileno()).st_size >= self.maxBytes


def log_to(path: Path, level: str = "INFO") -> None:
    """Send every logger's records to ``path``, which keeps the newest 20 MB in two files.

    Args:
        level: the least important records that are written.
    """
    # No line tells them, and finding them costs as much as the rest of it.
    logging._srcfile = None  # the way that the HOWTO of logging names
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = _Lines(path, maxBytes=_KEPT_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
    logging.getLogger("alembic").setLevel(logging.WARNING)
