"""Serve models that keep themselves up.

Importing this package does nothing but name the version: no file is opened, no socket, no heavy library.
"""

__version__ = "0.1.0"
