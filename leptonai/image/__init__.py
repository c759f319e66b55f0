"""Services as container images, without a daemon: bytes that depend on their inputs alone."""

from leptonai.image.build import Built, Inputs, build

__all__ = ["Built", "Inputs", "build"]
