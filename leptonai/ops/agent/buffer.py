"""Batches on disk until the platform has them: bounded, in order, each sent until it is taken."""

from __future__ import annotations

import fcntl
import gzip
import logging
import os
import uuid
from pathlib import Path

import msgspec

from leptonai.errors import Conflict, PlatformError
from leptonai.ops.agent.batch import Batch, decode, encode
from leptonai.types import LogRecord, Noun, Signal

log = logging.getLogger("leptonai.agent")
Positions = dict[str, tuple[int, int]]


class State(Noun, frozen=True, kw_only=True):
    """What the agent must know after a restart. ``positions``: log file -> (inode, bytes read)."""

    run: str
    number: int = 0
    dropped: int = 0
    positions: Positions = {}


class Buffer:
    """One folder, one agent: ``<number>.batch`` (gzip), ``state.json``. What was put survives the agent's death; a
    power cut may cost the newest batches, as nothing is synced."""

    def __init__(self, folder: Path, agent: str, limit: int) -> None:
        """``limit``: bytes of all batches. Conflict: another agent uses the folder; PlatformError: it is unusable."""
        self._folder, self._agent, self._limit = folder, agent, limit
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as e:
                os.close(self._lock)
                raise Conflict(f"another agent uses the buffer {folder}", hint="give it another --buffer") from e
            for torn in folder.glob("*.new"):
                torn.unlink()
            self.state = self._recover()
        except OSError as e:
            raise PlatformError(f"the buffer {folder} cannot be used: {e}", hint="give another --buffer") from e

    def put(self, signals: list[Signal], logs: list[LogRecord], positions: Positions) -> None:
        """The batch is on disk, after all before it; when there is no room the oldest go, loudly. OSError: no disk."""
        state = self.state
        batch = Batch(
            agent=self._agent,
            run=state.run,
            number=state.number + 1,
            signals=signals,
            logs=logs,
            dropped=state.dropped,
            positions=positions,
        )
        data = gzip.compress(encode(batch), 1)
        dropped = self._make_room(len(data))
        self._write(f"{batch.number:012d}.batch", data)
        self.state = msgspec.structs.replace(
            state, number=batch.number, dropped=state.dropped + dropped, positions=positions
        )
        self._write("state.json", msgspec.json.encode(self.state))

    def oldest(self) -> tuple[Path, bytes] | None:
        """The batch to send next, as it is sent (gzip); None when all were taken."""
        for path in self.waiting():
            try:
                return path, path.read_bytes()
            except FileNotFoundError:  # there was no room for it any more
                continue
        return None

    def waiting(self) -> list[Path]:
        """Oldest first."""
        return sorted(self._folder.glob("*.batch"))

    def close(self) -> None:
        os.close(self._lock)

    def _make_room(self, size: int) -> int:
        waiting = self.waiting()
        total, gone = size + sum(p.stat().st_size for p in waiting if p.exists()), 0
        for path in waiting:
            if total <= self._limit:
                break
            total -= path.stat().st_size if path.exists() else 0
            path.unlink(missing_ok=True)
            gone += 1
        if gone and not self.state.dropped:
            log.error("the buffer has more than %d bytes: the oldest batches are dropped, counted", self._limit)
        return gone

    def _recover(self) -> State:
        """What was known last: of the state, or of a newer batch whose state was not written any more."""
        try:
            state = msgspec.json.decode((self._folder / "state.json").read_bytes(), type=State)
        except (OSError, msgspec.DecodeError):
            state = State(run=uuid.uuid4().hex)
        for path in reversed(self.waiting()):
            try:
                newest = decode(gzip.decompress(path.read_bytes()))
            except Exception as e:  # noqa: BLE001 - whatever a damaged file does, the others are sent
                log.error("%s is damaged and dropped: %s", path, e)
                path.unlink(missing_ok=True)
                continue
            if newest.run == state.run and newest.number <= state.number:
                break
            return State(run=newest.run, number=newest.number, dropped=newest.dropped, positions=newest.positions)
        return state

    def _write(self, name: str, data: bytes) -> None:
        fresh = self._folder / f"{name}.new"
        try:
            fresh.write_bytes(data)
            fresh.replace(self._folder / name)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
