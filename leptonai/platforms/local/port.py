"""Ports that the gateway may listen on."""

from __future__ import annotations

import socket


def refusal(host: str, port: int) -> str | None:
    """Why the port cannot be had. Asked without SO_REUSEPORT: two Envoys of one user would silently share it."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError as e:
            return e.strerror
    return None


def free(host: str) -> int:
    """One that nobody has at the moment."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as s:
        s.bind((host, 0))
        return int(s.getsockname()[1])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
