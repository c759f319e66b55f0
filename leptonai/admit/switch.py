"""The kill switch: a file in the home folder, read for every proposal, so that it works at once and outlives everybody.

``touch <home>/frozen`` turns it on too, when nothing of ours answers. What cannot be read counts as on.
"""

from __future__ import annotations

import os
from pathlib import Path

from leptonai.errors import PlatformError

MOST = 1000  # characters that are told of it


class Switch:
    def __init__(self, path: Path) -> None:
        self._path = path

    def said(self) -> str:
        """Who turned it on and why; "" while it is off."""
        try:
            text = self._path.read_text(errors="replace")[:MOST].strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as e:
            return f"{self._path} cannot be read: {e.strerror}"
        return " ".join(text.split()) or f"{self._path} is there"

    def on(self, said: str) -> None:
        """It is on when this returns, also after a crash. PlatformError when it cannot be written."""
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            with fresh.open("w") as file:
                file.write(said[:MOST])
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as e:
            raise PlatformError(
                f"the kill switch {self._path} cannot be written: {e.strerror}",
                hint="`leptonai down` stops everything, or free space and try again",
            ) from e

    def off(self) -> None:
        """It is off when this returns."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as e:
            raise PlatformError(f"the kill switch {self._path} cannot be removed: {e.strerror}", hint="") from e
