"""The clients of the control API: ``Client`` blocks, ``AsyncClient`` does not. Both find the platform by themselves.

Importing this package loads no HTTP library: the parent process knows the home folder only, and stays small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leptonai.client.home import Home, find_home, find_platform
from leptonai.client.rollout import Progress, rollout

if TYPE_CHECKING:
    from leptonai.client.aio import AsyncClient as AsyncClient
    from leptonai.client.sync import Client as Client

__all__ = ["AsyncClient", "Client", "Home", "Progress", "find_home", "find_platform", "rollout"]


def __getattr__(name: str) -> object:
    if name == "Client":
        from leptonai.client.sync import Client

        return Client
    if name == "AsyncClient":
        from leptonai.client.aio import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
