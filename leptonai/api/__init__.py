"""The control API: every call, who may make it, and what it answers, from one table of routes."""

from leptonai.api.app import create_app

__all__ = ["create_app"]
