"""The edge process beside Envoy: adopted by a fresh platform, started again when it dies, asked what it holds."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from leptonai import __version__
from leptonai.errors import LeptonError
from leptonai.platforms.local.held import Held
from leptonai.platforms.local.logs import rotate
from leptonai.platforms.local.process import Ending, Process, boot_id
from leptonai.platforms.local.rundir import write_atomically
from leptonai.protocols import Record
from leptonai.types import Key, Noun, canonical

_LOG_BYTES = 8_000_000
_STABLE = 5.0  # seconds: one that lived shorter is started again only after _PAUSE
_PAUSE = 0.5
_PATIENCE, _LOOK = 10.0, 0.02  # seconds for one that is started to listen; between two looks
_AGAIN = 0.1  # seconds until one that does not say what it holds is asked again


class _Known(Noun, frozen=True, kw_only=True):
    """``<home>/edge.json``: the process to adopt, and what it was started with."""

    pid: int = 0
    ticks: int = 0
    boot: str = ""
    identity: str = ""
    socket: str = ""


class Edge:
    """Level, not edge: whatever happens to the process, one with today's command runs, or the next is on its way."""

    def __init__(self, folder: Path, runtime: Path, log: Path, record: Record, woken: Callable[[Key], None]) -> None:
        """``folder``: the gateway's. ``woken`` is called with a service's key when requests begin to be held for it."""
        self.sockets, self.own, self.log = runtime / "edge", runtime / "edge.sock", log
        self._endpoints, self._known_path = folder / "eds", folder.parent / "edge.json"
        self._record = record
        self._process: Process | None = None
        self._started = 0.0
        self._open = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._holding = Held(woken)

    @property
    def held(self) -> dict[tuple[Key, str], int]:
        """As ``Held.counts``."""
        return self._holding.counts

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.alive else None

    def start(self) -> bool:
        """An edge runs or has been started; it answers some 0.1 s later. True when none of ours ran before.

        StartError when it cannot be started.
        """
        self._endpoints.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._open = True
        known = _Known()
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            known = msgspec.json.decode(self._known_path.read_bytes(), type=_Known)
        found = Process.adopt(known.pid, known.ticks, known.boot)
        if found is not None and known.identity == self._identity():
            self._process = found
            found.watch(self._on_exit)
            self._record("edge.adopted", "edge", {"pid": found.pid})
        else:
            self._spawn()
            if found is not None:  # the new one takes its sockets over; what it holds it still answers
                found.terminate()
                found.release()
        self._later(self._holding.follow(str(self.own), _AGAIN))
        return found is None

    async def answering(self) -> None:
        """It listens for all that has an endpoint file; or _PATIENCE is over, and Envoy serves without it meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while True:
                    try:
                        _, writer = await asyncio.open_unix_connection(self.own)
                    except OSError:
                        await asyncio.sleep(_LOOK)
                        continue
                    writer.close()
                    return

    def tick(self) -> None:
        with contextlib.suppress(OSError):
            rotate(self.log, _LOG_BYTES, 2)

    async def stop(self) -> None:
        """It has ended; its sockets are removed with the runtime folder."""
        process = self._process
        self.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # nobody listens any more when it hangs up
        if process and process.alive:
            await process.stop(1.0)
        self._known_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it; it keeps running."""
        self._open = False
        for task in self._tasks:
            task.cancel()

    def release(self) -> None:
        if self._process:
            self._process.release()

    # --- the process -------------------------------------------------------------------------------------------------

    def _command(self) -> list[str]:
        return [sys.executable, "-P", "-m", "leptonai.edge", str(self._endpoints), str(self.own)]

    def _identity(self) -> str:
        return hashlib.sha256(canonical([__version__, self._command()])).hexdigest()

    def _spawn(self) -> None:
        process = Process.spawn(self._command(), {"PATH": "/usr/bin:/bin"}, self.log)
        known = _Known(pid=process.pid, ticks=process.ticks, boot=boot_id())
        known = msgspec.structs.replace(known, identity=self._identity(), socket=str(self.own))
        write_atomically(self._known_path, msgspec.json.encode(known))
        self._started = asyncio.get_running_loop().time()
        self._process = process
        process.watch(self._on_exit)
        self._record("edge.started", "edge", {"pid": process.pid})

    def _on_exit(self, ending: Ending) -> None:
        self._holding.counts = {}
        if self._process:
            self._record("edge.exited", "edge", {"pid": self._process.pid, "how": ending.text})
            self._process.release()
        if self._open:
            self._later(self._respawn())

    async def _respawn(self) -> None:
        while self._open:
            if asyncio.get_running_loop().time() - self._started < _STABLE:
                await asyncio.sleep(_PAUSE)
            try:
                self._spawn()
                return
            except (LeptonError, OSError) as e:
                self._record("edge.failed", "edge", {"error": str(e)})
                await asyncio.sleep(_PAUSE)

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
