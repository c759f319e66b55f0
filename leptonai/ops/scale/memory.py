"""What was learnt of the seasons of each service, on disk: a restart of ops must not cost days of learning."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import msgspec

from leptonai.plan.scale import Learner
from leptonai.types import Key

log = logging.getLogger(__name__)
FORMAT = 1
LONGEST_GAP = 20_000  # samples that may have been missed; past it, what was learnt is dropped


class Shelf:
    """One file a variant. A file that cannot be read or written costs what was learnt, never a decision."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, key: Key, variant: str, learner: Learner, now: float) -> None:
        path = self._path(key, variant)
        fresh = path.with_suffix(".new")
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            fresh.write_bytes(msgspec.msgpack.encode({"format": FORMAT, "at": now, "learner": learner.dump()}))
            fresh.replace(path)
        except OSError as e:
            log.warning("what was learnt of %s is not kept: %s", key, e)

    def learner(self, key: Key, variant: str, now: float) -> Learner | None:
        """What was kept, its seasons moved on to ``now``; None without any."""
        path = self._path(key, variant)
        try:
            state = msgspec.msgpack.decode(path.read_bytes())
            if state["format"] != FORMAT:
                return None
            found, gap = Learner.restored(state["learner"]), now - float(state["at"])
            if not 0 <= gap <= LONGEST_GAP * found.sample:
                log.info("what was learnt of %s is %.0f s old: learnt anew", key, gap)
                return None
            found.skip(gap)
            return found
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, ValueError, KeyError, TypeError, IndexError) as e:
            log.warning("what was learnt of %s cannot be read and is learnt anew: %s", key, e)
            return None

    def drop(self, key: Key, variant: str) -> None:
        with contextlib.suppress(OSError):
            self._path(key, variant).unlink(missing_ok=True)

    def _path(self, key: Key, variant: str) -> Path:
        return self._folder / f"{key.replace('/', '.')}@{variant}.msgpack"
