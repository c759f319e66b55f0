"""The clients of the control API: ``Client`` blocks, ``AsyncClient`` does not. Both find the platform by themselves."""

from leptonai.client.aio import AsyncClient
from leptonai.client.home import Home, find_home, find_platform
from leptonai.client.rollout import Progress, rollout
from leptonai.client.sync import Client

__all__ = ["AsyncClient", "Client", "Home", "Progress", "find_home", "find_platform", "rollout"]
