"""``from edgeml.federated import apply_filters``"""

from truststram_lab.federated import FederatedClient, apply_filters, compute_state_dict_delta

__all__ = ["FederatedClient", "apply_filters", "compute_state_dict_delta"]
