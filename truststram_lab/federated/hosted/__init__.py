"""Simulations with one host: many virtual clients, one participant on the platform.

::

    wish      what a person asked of the host, and the plan's record made of it
    failures  who is asked in a round, and what goes wrong there, by the run's seed
    work      the host's part in a round: train all, filter, aggregate, one update
    compare   what the clients would have had alone, and which of them lose by the federation
"""
