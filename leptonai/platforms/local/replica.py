"""One replica: its process, its run directory, its log, and what its probe says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable

import msgspec

from leptonai.platforms.local import cgroup
from leptonai.platforms.local.health import Health, answered, ended, starting
from leptonai.platforms.local.logs import Log
from leptonai.platforms.local.probe import Unanswered, UnixClient
from leptonai.platforms.local.process import Ending, Process, Starved
from leptonai.platforms.local.rundir import Ended, Record, RunDir
from leptonai.settings import Local
from leptonai.types import Replica, Tuning

_FASTEST, _FAST = 0.02, 0.1  # seconds between probes while starting, so that nobody waits for our clock ...
_SHARE = 0.05  # ... within them, of the time it has taken so far


class LocalReplica:
    """One replica, from before its process exists until nothing of it is left."""

    def __init__(
        self,
        record: Record,
        folder: RunDir,
        local: Local,
        clock: Callable[[], float],
        changed: Callable[[LocalReplica], None],
    ) -> None:
        self.record, self.folder, self._local, self._clock = record, folder, local, clock
        self._changed = changed
        self.health = starting(record.started, record.attempt)
        self.process: Process | None = None
        self.log = Log(folder.log, record.started)
        self.client = UnixClient(record.socket)
        self._probing: asyncio.Task[None] | None = None
        self._tuning: Tuning | None = None  # as the replica says
        self._cost: tuple[float, float] | None = None
        self._over = 0  # the memory limit, once we killed it for that

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.alive

    @property
    def gone(self) -> bool:
        return self.health.state == "failed" and self.health.reason != "hung"

    def noun(self) -> Replica:
        record, health = self.record, self.health
        return Replica(
            id=record.id,
            service=record.service,
            variant=record.variant,
            digest=record.digest,
            epoch=record.epoch,
            state=health.state,
            reason=health.reason,
            detail=health.detail,
            since=health.since,
            started=record.started,
            address=f"unix:{record.socket}",
            pid=self.process.pid if self.process and self.process.alive else None,
            attempt=health.attempt,
            tuning=self._tuning,
            cost=self._cost,
        )

    def hold(self, process: Process) -> None:
        """From now on the process is watched and probed."""
        self.process = process
        process.watch(self._on_exit)
        self._probing = asyncio.create_task(self._probe_for_ever())

    async def first_look(self) -> None:
        """Of an adopted replica: one probe, so that its state is known before anything is decided."""
        now = self._clock()
        try:
            answer = await self.client.request("GET", "/-/ready", 1.0)
        except Unanswered as e:
            if isinstance(e.__cause__, TimeoutError):  # it listens and does not answer: it was up, and is no more
                self.health = self.health._replace(state="ready", reason="", since=now, answered=now)
            return
        if answer.status != 200 and _state(answer.body) == "starting":
            return
        self.health = self.health._replace(state="ready", reason="", since=now, answered=now)

    def fail(self, reason: str, detail: str) -> None:
        """Nothing was started, or nothing runs any more, for this reason."""
        self.health = self.health._replace(state="failed", reason=reason, detail=detail, since=self._clock())
        self._settle()

    def recall(self, note: Ended) -> None:
        """It had ended before an earlier platform closed, which said why."""
        self.health = self.health._replace(state="failed", reason=note.reason, detail=note.detail, since=note.at)

    def lost(self) -> None:
        """It ended while no platform was watching."""
        over = (self.record.resources.memory or 0) if cgroup.oom_kills(self.record.cgroups) else 0
        self.health = ended(self.health, Ending(), self._clock(), self.folder.failure(), over, "")
        self._settle()

    async def tune(self, tuning: Tuning) -> bool:
        """Tell the process; True when it follows. What it does not hear now it is told again, from what it says."""
        try:
            answer = await self.client.request("PUT", "/-/batching", 0.5, msgspec.json.encode(tuning))
        except Unanswered:
            return False
        if answer.status != 200:
            return False
        self._tuning = tuning
        return True

    def stopping(self, reason: str) -> None:
        self.health = self.health._replace(state="stopping", reason=reason, detail="", since=self._clock())
        self._save(msgspec.structs.replace(self.record, stopping=reason))

    def tick(self, now: float) -> None:
        """Every probe interval: the log is noted and cut, memory is watched where no control group does it."""
        self.log.tick(now, self._local.log_bytes, self._local.log_files)
        limit = self.record.resources.memory
        if limit is None or self.record.cgroups or self._over or not self.process:
            return
        if self.process.rss() > limit:
            self._over = limit
            self.process.kill()

    def release(self) -> None:
        """Let go; the process keeps running."""
        if self._probing:
            self._probing.cancel()
        self.client.close()
        if self.process:
            self.process.release()

    async def _probe_for_ever(self) -> None:
        """At a steady pace: a probe that ran into its timeout is followed by the next at once, which waits longer."""
        loop, local = asyncio.get_running_loop(), self._local
        usual = patience = min(local.probe_interval, local.hung_after / 4)
        starved: list[Starved] = []  # it and we, since the first miss: nothing is read while all is well
        while self.alive and self.process:
            asked = loop.time()
            ok, detail = False, "no answer"
            try:
                answer = await self.client.request("GET", "/-/ready", patience)
                ok = answer.status == 200
                self._tuning, self._cost = _says(answer.body)
                detail = "" if ok else _detail(answer.body)
            except Unanswered as e:
                detail = _said(e)
            patience = min(2 * patience, local.hung_after) if detail == "no answer" else usual
            waited = max((s.seconds() for s in starved), default=0.0)
            self._become(answered(self.health, ok, detail, self._clock(), local, waited))
            if ok or not starved:
                starved = [] if ok else [Starved(self.process.pid), Starved(os.getpid())]
            await asyncio.sleep(max(0.0, asked + self._pace() - loop.time()))

    def _pace(self) -> float:
        """Seconds between probes. One that starts is asked often at first: requests may wait for it at the edge."""
        usual = self._local.probe_interval
        if self.health.state != "starting":
            return usual
        return min(usual, _FAST, max(_FASTEST, _SHARE * (self._clock() - self.record.started)))

    def _become(self, health: Health) -> None:
        before, self.health = self.health, health
        if (before.state, before.reason) != (health.state, health.reason):
            self._changed(self)

    def _on_exit(self, ending: Ending) -> None:
        self.client.close()
        if self.health.state == "stopping":
            return
        if cgroup.oom_kills(self.record.cgroups):
            self._over = self.record.resources.memory or 0
        lines = self.log.lines(self.id, 0.0, 1) if ending.code else []
        last = lines[0].text if lines else ""
        self.health = ended(self.health, ending, self._clock(), self.folder.failure(), self._over, last)
        self._settle()
        self._changed(self)

    def _settle(self) -> None:
        """Remember how it ended, for a platform that comes after us."""
        health = self.health
        note = Ended(reason=health.reason, detail=health.detail, at=health.since)
        self._save(msgspec.structs.replace(self.record, ended=note, attempt=health.attempt))

    def _save(self, record: Record) -> None:
        self.record = record
        with contextlib.suppress(OSError):  # a full disk: a fresh platform finds the process or its absence anyway
            self.folder.save(record)


class _Says(msgspec.Struct):
    """The part of a probe's answer that is about batching. Unknown fields are skipped."""

    tuning: Tuning | None = None
    cost: tuple[float, float] | None = None


_SAYS = msgspec.json.Decoder(_Says)


def _says(body: bytes) -> tuple[Tuning | None, tuple[float, float] | None]:
    try:
        said = _SAYS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):  # another version's runtime, or none of ours
        return None, None
    return said.tuning, said.cost


def _state(body: bytes) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    return str(found.get("state", "")) if isinstance(found, dict) else ""


def _said(e: Unanswered) -> str:
    match e.__cause__:
        case TimeoutError():
            return "no answer"
        case FileNotFoundError() | ConnectionRefusedError():
            return "it does not listen yet"
    return str(e)


def _detail(body: bytes) -> str:
    try:
        found = json.loads(body)
        return str(found.get("detail") or found.get("reason") or "not ready")[:300]
    except (ValueError, AttributeError):
        return "not ready"
