"""The platform's log: one JSON object a line, and never a credential in it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from .stores.ids import timestamp

__all__ = ["JsonLines", "log_to", "write_access"]

_access = logging.getLogger("truststram_lab.access")

#: a text as JSON in ASCII; what ``json.dumps`` does with one
_quoted = json.encoder.encode_basestring_ascii

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
    """Counts what it writes, where the standard one asks the file how large it is each time."""

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        self._handle = stream.fileno()
        self._size = os.fstat(self._handle).st_size
        return stream

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record as a line."""
        try:
            self.write(self.format(record))
        except Exception:  # noqa: BLE001 - as every handler: a log must stop nobody
            self.handleError(record)

    def write(self, line: str) -> None:
        """Write a line, which is ASCII; with the lock held."""
        if self._size >= self.maxBytes:
            self.doRollover()
        self._size += os.write(self._handle, f"{line}\n".encode("ascii"))


#: where ``log_to`` sends lines; None before
_lines: _Lines | None = None


def write_access(
    principal: str, method: str, path: str, status: int, bytes_in: int, bytes_out: int, ms: float
) -> None:
    """One line of a request: what ``JsonLines`` makes of it, in a tenth of the time."""
    if not _access.isEnabledFor(logging.INFO):
        return
    if _lines is None:
        fields = {"principal": principal, "method": method, "path": path, "status": status}
        fields |= {"bytes_in": bytes_in, "bytes_out": bytes_out, "ms": ms}
        _access.info("%s %s", method, path, extra={"fields": fields})
        return
    shown, place = _quoted(method), _quoted(path)
    line = (
        f'{{"time": "{timestamp()}", "level": "info", "logger": "{_access.name}", '
        f'"message": {shown[:-1]} {place[1:]}, "status": {status}, "bytes_in": {bytes_in}, '
        f'"bytes_out": {bytes_out}, "principal": {_quoted(principal)}, "method": {shown}, '
        f'"path": {place}, "ms": {ms}}}'
    )
    if "tsk_" in line or "tss_" in line:
        line = _TOKEN.sub("[token]", line)
    with contextlib.suppress(OSError):  # a full disk must not refuse what it only tells of
        _lines.acquire()
        try:
            _lines.write(line)
        finally:
            _lines.release()


def log_to(path: Path, level: str = "INFO") -> None:
    """Send every logger's records to ``path``, which keeps the newest 20 MB in two files.

    Args:
        level: the least important records that are written.
    """
    # No line tells them, and finding them costs as much as the rest of it.
    logging._srcfile = None  # the way that the HOWTO of logging names
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    global _lines
    handler = _lines = _Lines(path, maxBytes=_KEPT_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
    logging.getLogger("alembic").setLevel(logging.WARNING)
