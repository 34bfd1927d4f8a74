"""A keyring that several processes share, for tests: one file, one writer at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keyring.backend import KeyringBackend


class Keyring(KeyringBackend):
    priority = 20

    @contextmanager
    def _file(self) -> Iterator[dict[str, str]]:
        path = Path(os.environ["TEST_KEYRING"])
        with path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            found = json.loads(file.read() or "{}")
            before = dict(found)
            yield found
            if found != before:
                file.seek(0)
                file.truncate()
                file.write(json.dumps(found))
                file.flush()

    def get_password(self, service: str, username: str) -> str | None:
        with self._file() as found:
            return found.get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        with self._file() as found:
            found[f"{service}/{username}"] = password

    def delete_password(self, service: str, username: str) -> None:
        with self._file() as found:
            found.pop(f"{service}/{username}", None)
