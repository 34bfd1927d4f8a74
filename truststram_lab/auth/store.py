"""Where keys are kept between sessions: the system's keyring, else this process's memory."""

from __future__ import annotations

import contextlib
import secrets
import threading
from typing import Any

from truststram_lab.config import setting
from truststram_lab.exceptions import ConfigurationError, nearest

__all__ = ["TokenStore"]

_SERVICE = "truststram-lab"
_KINDS = ("keyring", "memory")

#: A keyring that waits for a person (a locked one asks for a password) counts as none.
_PROBE_S = 3.0

#: These write files or ask for a password in the terminal.
_REFUSED = ("keyrings.alt", "keyrings.cryptfile", "keyring.backends.fail", "keyring.backends.null")

_memory: dict[str, str] = {}
_lock = threading.Lock()
#: by identity, the backends that were probed and what is wrong with them (None: nothing)
_verdicts: dict[int, tuple[Any, str | None]] = {}
_noticed = False


class TokenStore:
    """Keeps one key for each platform; never in a file, never asking.

    ``TRUSTSTRAM_TOKEN_STORAGE`` chooses ``keyring`` or ``memory``. Without it the keyring is
    taken when a value written to it can be read and deleted again, else memory.

    Raises:
        ConfigurationError: another value, or ``keyring`` was chosen and does not work.
    """

    def __init__(self) -> None:
        chosen = setting("TOKEN_STORAGE")
        if chosen.value is not None and chosen.value not in _KINDS:
            near = nearest(chosen.value, _KINDS, most=1)
            raise ConfigurationError(
                f"{chosen.source}={chosen.value!r} is no token storage; "
                + (f"did you mean {near[0]!r}?" if near else "use 'keyring' or 'memory'.")
            )
        self._keyring: Any = None
        self._trouble: str | None = None
        if chosen.value != "memory":
            self._keyring, self._trouble = _working_keyring()
        if chosen.value == "keyring" and self._trouble is not None:
            raise ConfigurationError(
                f"{chosen.source}='keyring', but {self._trouble}; unset it to keep keys in memory."
            )

    @property
    def kind(self) -> str:
        """``keyring`` or ``memory``."""
        return "memory" if self._keyring is None else "keyring"

    def get(self, base_url: str) -> str | None:
        """The key for the platform, or None."""
        if self._keyring is not None:
            found = self._keyring.get_password(_SERVICE, base_url)
            return None if found is None else str(found)
        return _memory.get(base_url)

    def set(self, base_url: str, token: str) -> str | None:
        """Keep the key; returns a sentence for the person when it is kept in memory only.

        The sentence comes once in a process, and not when memory was asked for.
        """
        global _noticed
        if self._keyring is not None:
            self._keyring.set_password(_SERVICE, base_url, token)
            return None
        _memory[base_url] = token
        if self._trouble is None or _noticed:
            return None
        _noticed = True
        return (
            f"The key is kept in this kernel's memory only, because {self._trouble}; "
            "sign in again after a restart."
        )

    def delete(self, base_url: str) -> None:
        """Forget the key, wherever it was kept."""
        _memory.pop(base_url, None)
        if self._keyring is not None and self.get(base_url) is not None:
            self._keyring.delete_password(_SERVICE, base_url)


def _working_keyring() -> tuple[Any, str | None]:
    """The system's keyring, or None and why not."""
    import keyring

    backend = keyring.get_keyring()
    with _lock:
        if id(backend) not in _verdicts:
            _verdicts[id(backend)] = backend, _trouble_with(backend)
        _, trouble = _verdicts[id(backend)]
    return (backend, None) if trouble is None else (None, trouble)


def _trouble_with(backend: Any) -> str | None:
    for part in [backend, *getattr(backend, "backends", [])]:
        module = type(part).__module__
        if module.startswith(_REFUSED):
            return "this computer has no system keyring"
        if module == "keyring.backends.SecretService" and _is_locked():
            return "the system keyring is locked"
    outcome: list[str | None] = []
    # On a thread of its own: a keyring may wait for a desktop that is not there.
    probe = threading.Thread(
        target=lambda: outcome.append(_probe(backend)), name="keyring probe", daemon=True
    )
    probe.start()
    probe.join(_PROBE_S)
    return outcome[0] if outcome else "the system keyring does not answer"


def _is_locked() -> bool:
    import secretstorage  # comes with keyring on Linux

    try:
        with contextlib.closing(secretstorage.dbus_init()) as bus:
            return bool(secretstorage.get_default_collection(bus).is_locked())
    except secretstorage.exceptions.SecretStorageException:
        return True


def _probe(backend: Any) -> str | None:
    """Write, read and delete a value; what is wrong, or None."""
    name, value = f"probe-{secrets.token_hex(8)}", secrets.token_hex(8)
    try:
        backend.set_password(_SERVICE, name, value)
        try:
            read = backend.get_password(_SERVICE, name)
        finally:
            backend.delete_password(_SERVICE, name)
    except Exception as error:  # noqa: BLE001 - backends raise what their system raises
        return f"the system keyring refuses to work ({type(error).__name__})"
    return None if read == value else "the system keyring does not keep what it is given"
