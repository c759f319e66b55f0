"""One output: entries wait in a bounded queue, go in batches, come again after a while, or end as dead letters."""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Protocol

import httpx
import msgspec

from leptonai.settings import Logs
from leptonai.types import LogEntry

log = logging.getLogger(__name__)
BATCH = 500  # entries of one request
BATCH_BYTES = 1_000_000  # of their lines; both systems take some megabytes by default
EVERY = 1.0  # seconds between two looks at what waits
LONGEST = 60.0  # seconds between two tries
MISTAKEN = (401, 403, 404, 405)  # of our settings: tried again until a person has put them right


class Verdict(NamedTuple):
    """What became of a batch: ``again`` may be sent once more, ``dead`` with why not."""

    again: list[LogEntry]
    dead: list[tuple[LogEntry, str]]


class Wire(Protocol):
    """A format. Pure."""

    name: str
    path: str
    content_type: str

    def encode(self, entries: Sequence[LogEntry]) -> bytes: ...

    def judge(self, body: bytes, entries: Sequence[LogEntry]) -> Verdict:
        """What an answer of 2xx says of each entry."""


class Sender:
    """``counts``: ``sent``, ``dropped`` (too many waited), ``dead``, ``failed`` tries, ``again`` (single entries)."""

    def __init__(
        self,
        wire: Wire,
        url: str,
        headers: dict[str, str],
        settings: Logs,
        dead: Path,
        mask: Callable[[LogEntry], LogEntry],
    ) -> None:
        self.wire = wire
        self.counts: Counter[str] = Counter()
        self._url = url.rstrip("/") + wire.path
        self._headers = {"content-type": wire.content_type, "content-encoding": "gzip", **headers}
        self._settings, self._dead, self._mask = settings, dead, mask
        self._waiting: deque[LogEntry] = deque()
        self._batches: deque[list[LogEntry]] = deque()  # masked already
        self._lock = Lock()
        self._told: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiting) + sum(map(len, self._batches))

    def put(self, entries: Sequence[LogEntry]) -> None:
        """Hand over; never waits. The oldest go when too many wait."""
        with self._lock:
            self._waiting.extend(entries)
            over = max(0, len(self._waiting) - self._settings.pending)
            for _ in range(over):
                self._waiting.popleft()
            self.counts["dropped"] += over
        if over:
            self._tell("dropped", f"{self.wire.name} is too slow or away: the oldest log lines are dropped")

    async def run(self) -> None:
        """Send what waits, until cancelled."""
        async with httpx.AsyncClient(timeout=10.0, trust_env=False) as http:
            pause = EVERY
            while True:
                await asyncio.sleep(pause)
                pause = await self.flush(http, pause)

    async def flush(self, http: httpx.AsyncClient, pause: float = EVERY) -> float:
        """Send until nothing waits or the other side wants a pause; the seconds until the next look."""
        while self._batches or self._waiting:
            if not self._batches:
                batch = self._take()
                self._batches.append(await asyncio.to_thread(self._masked, batch))
            wait = await self._send(http)
            if wait is not None:
                return min(max(wait, 2 * pause), LONGEST)
        return EVERY

    def _masked(self, batch: list[LogEntry]) -> list[LogEntry]:
        return [self._mask(entry) for entry in batch]

    def _take(self) -> list[LogEntry]:
        batch: list[LogEntry] = []
        size = 0
        with self._lock:
            while self._waiting and len(batch) < BATCH and size < BATCH_BYTES:
                batch.append(self._waiting.popleft())
                size += len(batch[-1].body)
        return batch

    async def _send(self, http: httpx.AsyncClient) -> float | None:
        """None: go on. Else a pause is wanted, of that many seconds or what is usual (0)."""
        batch = self._batches.popleft()
        try:
            answer = await http.post(
                self._url, content=gzip.compress(self.wire.encode(batch), 1), headers=self._headers
            )
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            return self._again(batch, str(e) or type(e).__name__, 0.0)
        status = answer.status_code
        said = f"answered {status}: {answer.text[:300]}"
        if status < 300:
            verdict = self.wire.judge(answer.content, batch)
            self._bury(verdict.dead)
            self.counts["sent"] += len(batch) - len(verdict.again) - len(verdict.dead)
            self.counts["again"] += len(verdict.again)
            return self._again(verdict.again, "is busy", 0.0) if verdict.again else None
        if status == 429 or status >= 500 or status in MISTAKEN:
            after = answer.headers.get("retry-after", "")
            return self._again(batch, said, float(after) if after.isdigit() else 0.0)
        if len(batch) > 1:  # something in it is refused: halves find out what; what was taken is known by its id
            half = len(batch) // 2
            self._batches.extendleft([batch[half:], batch[:half]])
            return None
        self._bury([(batch[0], said)])
        return None

    def _again(self, batch: list[LogEntry], why: str, after: float) -> float:
        self.counts["failed"] += 1
        self._tell("failed", f"log lines cannot be sent to {self._url}: {why}; tried again")
        self._batches.appendleft(batch)
        return after

    def _bury(self, dead: Sequence[tuple[LogEntry, str]]) -> None:
        if not dead:
            return
        self._tell("dead", f"{self.wire.name} refuses log lines, see {self._dead}: {dead[0][1]}")
        self.counts["dead"] += len(dead)
        path = self._dead / f"{self.wire.name}.jsonl"
        try:
            self._dead.mkdir(mode=0o700, exist_ok=True)
            if path.exists() and path.stat().st_size > self._settings.dead_bytes // 2:
                path.replace(path.with_name(path.name + ".1"))
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "wb") as out:
                out.write(msgspec.json.Encoder().encode_lines([{"why": why, "entry": entry} for entry, why in dead]))
        except OSError as e:
            self._tell("unburied", f"refused log lines cannot be kept in {path}: {e}")

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            log.error("%s; told once", text)
