"""The command line. Light to import: a command's module is loaded when it is called."""

from leptonai.cli.main import main

__all__ = ["main"]
