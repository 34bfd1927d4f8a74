"""The arithmetic of federated learning on plain arrays; torch only in ``training`` and ``device``.

Nothing is imported here, so that the platform can take ``learning.weights`` alone.
"""
