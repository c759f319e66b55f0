"""Replicas as processes on one machine, behind one Envoy."""

from leptonai.platforms.local.platform import LocalPlatform

__all__ = ["LocalPlatform"]
