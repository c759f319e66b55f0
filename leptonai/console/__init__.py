"""The console: server-rendered pages over the REST API, and nothing else. No build step, no call to the outside."""

from leptonai.console.app import mount

__all__ = ["mount"]
