"""Where a documented client's platform is."""

from __future__ import annotations

from urllib.parse import urlsplit

from truststram_lab import sandbox
from truststram_lab.config import setting
from truststram_lab.transport import Target, TargetProvider, normal_url

__all__ = ["device_place"]

#: The documents' own host: it stands for the platform that is configured.
_DOCUMENTED = "api.edgeml.io"


def device_place(address: str | None) -> tuple[TargetProvider, str]:
    """The platform of a device, and a name for what is kept of it.

    Args:
        address: as it was given; the documents' own, or None, is ``TRUSTSTRAM_BASE_URL``, and
            without that the private platform on this computer.

    Raises:
        ConfigurationError: it is no address, or unencrypted to another computer.
    """
    for given in (address, None):
        found = setting("BASE_URL", given).value
        if found is not None and urlsplit(found).hostname != _DOCUMENTED:
            url = normal_url(found)
            return Target(url), urlsplit(url).netloc
    return sandbox.target(), "sandbox"
