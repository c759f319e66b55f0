"""How Envoy writes quantities."""

from __future__ import annotations


def seconds(value: float) -> str:
    """Protobuf's JSON duration, to the microsecond."""
    return f"{value:.6f}".rstrip("0").rstrip(".") + "s"
