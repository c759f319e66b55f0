"""What the process of a job is asked, and what it answers."""

from __future__ import annotations

from leptonai.types import Job, Noun


class Asked(Noun, frozen=True, kw_only=True):
    job: Job
    env: dict[str, str] = {}


class Ended(Noun, frozen=True, kw_only=True):
    """``code``: 0 is well. ``error``: why there is none. ``output``: the beginning of what it said."""

    code: int | None = None
    error: str = ""
    output: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> str:
        """How it failed, in words; "": it did not. A code of 0 says that it ended, never that it helped."""
        if self.error:
            return self.error
        if not self.code:
            return ""
        said = f": {self.output.strip()[-200:]!r}" if self.output.strip() else ""
        return f"it ended with {self.code}{said}"
