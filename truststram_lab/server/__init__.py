"""The platform: its own process, reached over HTTP alone.

``__main__`` starts it; ``app`` puts the parts together; ``routes`` are the doors,
``services`` the rules, ``stores`` what is kept on disk. Nobody imports this package.
"""
