"""Which platform, which home, and which setting decided.

Order: arguments > ``TRUSTSTRAM_*`` > ``EDGEML_*`` > the sandbox's defaults. Read at the
time of the call, so that a notebook can change ``os.environ`` between two cells.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .exceptions import ConfigurationError

__all__ = ["Setting", "home", "number_setting", "setting"]

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
