"""The arithmetic of federated learning on plain arrays; torch only on use.

Nothing is imported here, so that the platform can take ``learning.weights`` alone.
"""
