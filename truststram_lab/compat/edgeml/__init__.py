"""The names of the EdgeML documents; all of it is ``truststram_lab``."""

from truststram_lab.client.device_auth import DeviceAuthClient
from truststram_lab.federated import FederatedClient

__all__ = ["DeviceAuthClient", "FederatedClient"]
