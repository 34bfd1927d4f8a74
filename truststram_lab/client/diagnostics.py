"""What a bug report needs: versions and states, never a name, a path or a key."""

from __future__ import annotations

import os
import platform as host
import sys
from importlib import metadata

from truststram_lab import __version__
from truststram_lab.exceptions import TrustStramException
from truststram_lab.schemas.base import PROTOCOL

from .clients import TrustStramClient

__all__ = ["environment_report"]

#: nothing else of the environment is looked at
_PACKAGES = (
    "anywidget", "fastapi", "httpx", "ipykernel", "ipython", "ipywidgets", "jupyterlab", "numpy",
    "pandas", "pydantic", "safetensors", "scikit-learn", "sqlalchemy", "torch", "uvicorn",
)  # fmt: skip


def environment_report(client: TrustStramClient | None) -> dict[str, dict[str, str]]:
    """Facts by section, safe to paste.

    Args:
        client: of whoever is signed in here; the platform is asked who that is.
    """
    settings = {
        name: "set" for name in sorted(os.environ) if name.startswith(("TRUSTSTRAM_", "EDGEML_"))
    }
    return {
        "This computer": {
            "truststram-lab": __version__,
            "protocol": str(PROTOCOL),
            "python": host.python_version(),
            "system": f"{host.system()} {host.machine()}",
            "processors": str(os.cpu_count()),
            "in a kernel": "yes" if "ipykernel" in sys.modules else "no",
        },
        "Platform": _platform(client),
        "Settings": settings or {"environment variables": "none set"},
        "Packages": {name: _version(name) for name in _PACKAGES},
    }


def _platform(client: TrustStramClient | None) -> dict[str, str]:
    if client is None:
        return {"signed in": "no"}
    facts = {"signed in": "yes", "environment": client.environment}
    try:
        identity = client.accounts.whoami()
        facts["answers"] = f"yes, version {identity.platform_version}"
    except TrustStramException as error:
        facts["answers"] = f"no: {type(error).__name__}"
    return facts


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
