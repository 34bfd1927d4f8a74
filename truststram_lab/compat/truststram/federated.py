"""``from truststram.federated import FederatedClient``"""

from truststram_lab.federated import (
    FederatedClient,
    FederatedLearningCoordinator,
    FederatedServer,
)

__all__ = ["FederatedClient", "FederatedLearningCoordinator", "FederatedServer"]
