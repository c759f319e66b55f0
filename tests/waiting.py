"""Waiting for what processes do, and a port for one that cannot take any free one itself."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
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
    """Free a moment ago, and none of those that connections are given: no test beside takes it before it is used."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        port = 10_000 + secrets.randbelow(low - 10_000) if low > 12_000 else 0  # hypothesis seeds `random`
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as server:
            return int(server.getsockname()[1])
    raise AssertionError("no port is free")
