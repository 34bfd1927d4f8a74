"""The names of the EdgeML documents; all of it is ``truststram_lab``."""

from truststram_lab.federated import FederatedClient

__all__ = ["FederatedClient"]
