"""Where deployed versions run: an interface, and the workers on this computer behind it.

Nothing is imported here: the worker process loads ``worker`` alone.
"""
