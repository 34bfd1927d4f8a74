"""Which platform, which home, and which setting decided.

Order: arguments > ``TRUSTSTRAM_*`` > ``EDGEML_*`` > the sandbox's defaults. Read at the
time of the call, so that a notebook can change ``os.environ`` between two cells.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from .exceptions import ConfigurationError, nearest

__all__ = [
    "KNOWN",
    "Decided",
    "Known",
    "Setting",
    "apply_log_level",
    "decided",
    "home",
    "log_level",
    "number_setting",
    "setting",
]

#: name -> the twin of the second family of names, where it has one
_TWINS = {
    "BASE_URL": "EDGEML_API_BASE",
    "ORG_ID": "EDGEML_ORG_ID",
    "DEVICE_ID": "EDGEML_DEVICE_ID",
    "PLATFORM": "EDGEML_PLATFORM",
    "TOKEN_STORAGE": "EDGEML_TOKEN_STORAGE",
    "LOG_LEVEL": "EDGEML_LOG_LEVEL",
}


@dataclass(frozen=True)
class Setting:
    """A value and where it came from: "argument", a variable's name, or "default"."""

    value: str | None
    source: str


@dataclass(frozen=True)
class Known:
    """A setting of the environment: ``TRUSTSTRAM_`` and its name.

    Args:
        default: in words, what holds where nothing is set.
        secret: the value is never shown.
    """

    name: str
    meaning: str
    default: str
    secret: bool = False


#: every variable that is read, in the order in which they are shown
KNOWN = (
    Known("BASE_URL", "address of the platform", "the sandbox of this computer"),
    Known("ENVIRONMENT", "production or sandbox", "production where there is an address"),
    Known("API_KEY", "key for the platform", "the one of the last sign-in", secret=True),
    Known("ORG_ID", "organisation that a participant names", "default"),
    Known("DEVICE_ID", "name of this participant", "made up, once a client"),
    Known("PLATFORM", "what a participant says it runs on", "python"),
    Known("TOKEN_STORAGE", "where keys are kept", "the system's keyring if it works, else memory"),
    Known("LOG_LEVEL", "least important lines that are logged", "INFO"),
    Known("FL_ADDRESS", "address of FederatedServer", "localhost:8080"),
    Known("FL_TOKEN", "token for that address", "none is needed on this computer", secret=True),
    Known("SITE_DATA", "file of rows that site.py trains with", "the file beside it"),
    Known("HOME", "folder of the sandbox", "the user's data folder"),
    Known("IDLE_S", "seconds after which an idle sandbox ends", "1800"),
    Known("LOG_DAYS", "days for which predictions stay in the log", "30"),
    Known("DATABASE_URL", "database of the platform", "a file in its folder", secret=True),
)

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True)
class Decided:
    """What holds now for one setting.

    ``source`` is the variable that decided, or "default"; ``ignored`` is set as well, and does
    not count.
    """

    known: Known
    value: str
    source: str
    ignored: str | None = None


def decided() -> list[Decided]:
    """Every setting, with what decided it; secrets are only said to be there."""
    found: list[Decided] = []
    for known in KNOWN:
        here = setting(known.name)
        value = known.default if here.value is None else here.value
        if known.secret and here.value is not None:
            value = "set, not shown"
        twin = _TWINS.get(known.name)
        ignored = twin if twin != here.source and os.environ.get(twin or "") else None
        found.append(Decided(known, value, here.source, ignored))
    return found


def log_level() -> str | None:
    """The level that ``LOG_LEVEL`` names; None where nothing is set.

    Raises:
        ConfigurationError: it names none; the nearest is in the sentence.
    """
    found = setting("LOG_LEVEL")
    if found.value is None:
        return None
    level = found.value.strip().upper()
    if level not in _LEVELS:
        near = nearest(level, _LEVELS, most=1)
        hint = f"did you mean {near[0]}?" if near else f"use {', '.join(_LEVELS)}."
        raise ConfigurationError(f"{found.source}={found.value!r} is no level of a log; {hint}")
    return level


def apply_log_level() -> None:
    """Let the package's loggers follow ``LOG_LEVEL``; where it is not set they stay as they are.

    Raises:
        ConfigurationError: as ``log_level``.
    """
    level = log_level()
    if level is not None:
        logging.getLogger(__package__).setLevel(level)


def setting(name: str, argument: str | None = None, default: str | None = None) -> Setting:
    """The setting ``name`` (without prefix, for example ``BASE_URL``) and its source."""
    if argument is not None:
        return Setting(argument, "argument")
    for variable in (f"TRUSTSTRAM_{name}", _TWINS.get(name)):
        if variable and os.environ.get(variable):
            return Setting(os.environ[variable], variable)
    return Setting(default, "default")


def number_setting(name: str, default: float, *, minimum: float = 0.0) -> float:
    """A numeric setting; an error names the variable and the range."""
    found = setting(name)
    if found.value is None:
        return default
    try:
        number = float(found.value)
    except ValueError:
        number = float("nan")
    if not number >= minimum:
        raise ConfigurationError(
            f"{found.source}={found.value!r} is not a number of at least {minimum:g}; "
            f"unset it to use {default:g}."
        )
    return number


def home() -> Path:
    """The folder of the sandbox's state: ``TRUSTSTRAM_HOME``, else the user's data folder."""
    chosen = os.environ.get("TRUSTSTRAM_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs  # loaded on use: the package's import stays light

    return Path(platformdirs.user_data_dir("truststram-lab", appauthor=False))
