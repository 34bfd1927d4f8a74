"""The Jupyter Server extension: a door to the platform that asks for Jupyter's own credentials.

The browser never holds a credential of the platform: it speaks to Jupyter, and Jupyter's
process finds the platform, adds the credential and passes bytes on.
"""

from .extension import _load_jupyter_server_extension

__all__ = ["_load_jupyter_server_extension"]
