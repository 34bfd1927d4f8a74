"""Differential privacy: noise, mechanisms, accountants, plans, and the arithmetic of a budget.

Nothing is imported here, so that the platform takes only what it needs; torch is in ``dpsgd``
and ``simulation`` alone, and there only on use.
"""
