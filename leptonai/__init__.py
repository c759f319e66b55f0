"""Serve models that keep themselves up.

Importing this package does nothing but name the version: no file is opened, no socket, no heavy library.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name != "Model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return import_module("leptonai.lab.model").Model
    except ModuleNotFoundError as e:
        from leptonai.errors import NotInstalled

        raise NotInstalled("leptonai.Model", e.name) from e
