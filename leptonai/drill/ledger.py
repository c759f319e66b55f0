"""What every drill led to, on disk: one JSON line each, synced before the next drill begins."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from leptonai.drill.outcome import Outcome
from leptonai.errors import SpecError


class Ledger:
    """``<folder>/drills/<name>.jsonl``. A line that a kill cut off is passed over when it is read, and cut away."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / "drills" / f"{name}.jsonl"

    def read(self) -> list[Outcome]:
        """All outcomes so far, in order. SpecError when a whole line is none."""
        if not self.path.exists():
            return []
        whole, _, rest = self.path.read_bytes().rpartition(b"\n")
        if rest:
            with self.path.open("rb+") as file:
                file.truncate(len(whole) + 1 if whole else 0)
        try:
            return [msgspec.json.decode(line, type=Outcome) for line in whole.split(b"\n") if line]
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise SpecError(f"{self.path}: {e}", hint="it was written by another version: move it away") from e

    def append(self, outcome: Outcome) -> None:
        """The outcome is on disk when this returns. SpecError when it cannot be kept."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(outcome) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as e:
            raise SpecError(f"{self.path}: {e.strerror}", hint="name a folder with --out that can be written") from e

    def clear(self) -> None:
        """Begin anew; what was there is kept beside it under another name."""
        if self.path.exists():
            self.path.replace(self.path.with_suffix(".before"))
