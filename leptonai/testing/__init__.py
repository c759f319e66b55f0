"""Conformance suites: what every implementation of a seam must do, ours and everyone's. Needs pytest's ``assert``."""

from leptonai.testing.platform import PlatformSuite

__all__ = ["PlatformSuite"]
