"""The plain twins of the magics: one function a command, the same names and arguments."""

from __future__ import annotations

from .accounts import doctor, login, logout, where
from .comparing import compare
from .completion import completion_names
from .contributing import contribution
from .deployments import deploy, deployments
from .explaining import explain
from .federation import federate, runs
from .managing import federations
from .participants import join
from .platform import sandbox
from .registry import models
from .serving import predict
from .simulation import simulate
from .sweeping import sweep

__all__ = [
    "compare",
    "completion_names",
    "contribution",
    "deploy",
    "deployments",
    "doctor",
    "explain",
    "federate",
    "federations",
    "join",
    "login",
    "logout",
    "models",
    "predict",
    "runs",
    "sandbox",
    "simulate",
    "sweep",
    "where",
]
