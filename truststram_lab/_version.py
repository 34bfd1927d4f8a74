"""The one place where the version is written."""

__version__ = "4.4.0"
