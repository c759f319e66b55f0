"""The log of one pod, followed into ``<home>/run/<pod>/log``, where everybody looks for logs of replicas."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

from leptonai.errors import LeptonError
from leptonai.platforms.kubernetes.cluster import Cluster, Expired
from leptonai.platforms.kubernetes.names import path
from leptonai.platforms.local.logs import rotate
from leptonai.types import LogLine

KEPT = 2000  # lines in memory, with the times that Kubernetes gives them
SILENCE = 3600.0  # seconds without a line until the connection is made anew
AGAIN = 1.0  # seconds until a log that broke off is asked for again
ENDED = 10.0  # seconds after the end of a log until it is asked for again of a container that runs all the same
_OLD_LOGS = 50  # logs of pods that are gone, the newest


class PodLog:
    """The file's own time is that of its last line, so that a fresh platform goes on where an earlier one ended."""

    def __init__(self, cluster: Cluster, pod: str, home: Path, log_bytes: int, log_files: int) -> None:
        self.pod = pod
        self.lines: deque[LogLine] = deque(maxlen=KEPT)
        self._cluster = cluster
        self._folder = home / "run" / pod
        self._file, self._old = self._folder / "log", home / "logs" / "replicas"
        self._limits = log_bytes, log_files
        self._written = 0  # nanoseconds of the newest line in the file
        with contextlib.suppress(OSError):
            self._written = self._file.stat().st_mtime_ns
        self._seen = 0
        self._container, self._runs = "", False
        self._moved = asyncio.Event()

    def has(self, container: str, runs: bool) -> None:
        """The pod's newest container that has begun ("" where none is told of), and whether it runs."""
        container = container or self._container
        if (container, runs) != (self._container, self._runs):
            self._container, self._runs = container, runs
            self._moved.set()

    async def run(self) -> None:
        """Follow until cancelled; what breaks off is taken up again. A container is asked for once, unless its log
        breaks off: nobody is asked for what is not there."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        read = ""
        while True:
            while self._container == read:
                await self._next(None)
            container = self._container
            try:
                await self._follow()
            except (LeptonError, Expired, OSError) as e:  # a full disk, no API server, or its node has removed it
                await asyncio.sleep(AGAIN)
                if isinstance(e, LeptonError) and not e.retry and self._container == container and not self._runs:
                    read = container
            else:
                if self._container == container and self._runs:
                    await self._next(ENDED)  # the end of a log comes before the news that its container has ended
                if self._container != container or not self._runs:
                    read = container

    async def _next(self, seconds: float | None) -> None:
        """The pod's container changed, or so long has gone by."""
        self._moved.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._moved.wait()

    def bury(self) -> None:
        """The pod is gone: its log stays readable for a while, its folder goes."""
        with contextlib.suppress(OSError):
            self._old.mkdir(parents=True, exist_ok=True)
            if self._file.exists():
                self._file.replace(self._old / f"{self.pod}.log")
            for old in sorted(self._old.iterdir(), key=lambda p: p.stat().st_mtime)[:-_OLD_LOGS]:
                old.unlink()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _follow(self) -> None:
        where = path("v1", "Pod", self._cluster.namespace, f"{self.pod}/log")
        asked = {"follow": "true", "timestamps": "true", "tailLines": str(KEPT)}
        if self._seen:
            asked["sinceTime"] = datetime.fromtimestamp(self._seen // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        async for line in self._cluster.lines(where, f"read the log of {self.pod}", asked, SILENCE):
            stamp, _, text = line.partition(" ")
            at = nanoseconds(stamp)
            if at > self._seen:
                self._seen = at
                self.lines.append(LogLine(at=at / 1e9, replica=self.pod, text=text))
            if at > self._written:
                self._append(text, at)

    def _append(self, text: str, at: int) -> None:
        with open(self._file, "a", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            file.write(text + "\n")
        rotate(self._file, *self._limits)
        os.utime(self._file, ns=(at, at))
        self._written = at


def nanoseconds(stamp: str) -> int:
    """``2026-11-21T17:00:00.123456789Z`` as nanoseconds since 1970; 0 when it is no time."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    try:
        seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
        return seconds * 10**9 + int((fraction or "0").ljust(9, "0")[:9])
    except ValueError:
        return 0
