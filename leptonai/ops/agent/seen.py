"""Which batch of each agent was the last one taken: what comes again is not taken twice."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)
MOST = 10_000  # agents remembered; past it the longest silent ones are forgotten


class Seen:
    """Kept in ``path``, renamed into place with every batch taken; None: in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._last: dict[str, tuple[str, int]] = {}
        if path is not None and path.exists():
            try:
                self._last = msgspec.json.decode(path.read_bytes(), type=dict[str, tuple[str, int]])
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as e:
                log.error("%s cannot be read, batches of agents may be taken twice once: %s", path, e)

    def known(self, agent: str, run: str, number: int) -> bool:
        """Whether this batch was taken before."""
        last = self._last.get(agent)
        return last is not None and last[0] == run and number <= last[1]

    def took(self, agent: str, run: str, number: int) -> None:
        self._last.pop(agent, None)
        self._last[agent] = (run, number)
        while len(self._last) > MOST:
            self._last.pop(next(iter(self._last)))
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.with_suffix(f".{os.getpid()}.new")
            fresh.write_bytes(msgspec.json.encode(self._last))
            fresh.replace(self._path)
        except OSError as e:
            log.error("%s cannot be written: %s", self._path, e)
