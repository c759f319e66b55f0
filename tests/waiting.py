"""Waiting for what processes do, and a port for one that cannot take any free one itself."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any


def eventually(true: Callable[[], Any], what: str = "", patience: float = 60.0) -> Any:
    """What ``true`` returns once it is so; fails naming ``what`` after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(0.05)
    return found


async def until(true: Callable[[], Any], what: str = "", patience: float = 60.0) -> Any:
    """``eventually``, while the loop goes on."""
    deadline = time.monotonic() + patience
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        await asyncio.sleep(0.02)
    return found


def free_port() -> int:
    """Free a moment ago; another process may take it before it is used."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
