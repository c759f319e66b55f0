"""Who waits for the compute thread. While one run goes on, those who wait behind it in vain are answered here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic

from leptonai.runtime.batching import LEVELS, Job
from leptonai.runtime.compute import Compute

LOOK = 0.02  # seconds between two looks; a run that is shorter is followed by one of the compute thread itself


class Waiting:
    """Used on the I/O loop. ``submitted[level]``: samples handed over since the start, without those given up.

    What waits is ``sum(submitted) - sum(compute.taken)``.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, compute: Compute, give_up: Callable[[Job, float], None]
    ) -> None:
        self._loop, self._compute, self._give_up = loop, compute, give_up
        self.submitted = [0] * (LEVELS + 1)
        self._open: set[Job] = set()
        self._looking = False

    def add(self, job: Job) -> None:
        """It is handed over. From now on it is answered within LOOK seconds of its deadline, whatever runs."""
        self.submitted[job.priority] += job.samples
        self._open.add(job)
        if not self._looking:
            self._looking = True
            self._loop.call_later(LOOK, self._look)

    def leaves(self, job: Job) -> bool:
        """The compute thread has answered it. False when it was answered here before: that answer is for nobody."""
        self._open.discard(job)
        if job.left:
            self.submitted[job.priority] += job.samples  # the compute thread has counted it as taken
        return not job.left

    def _look(self) -> None:
        self._looking = bool(self._open)
        if not self._looking:
            return
        running, now = self._compute.running, monotonic()
        if running is not None and now - running[0] >= LOOK:
            for job in abandoned(self._open, now):
                self._give_up(job, now)
                job.left = True
                self.submitted[job.priority] -= job.samples
        self._loop.call_later(LOOK, self._look)


def abandoned(jobs: Iterable[Job], now: float) -> list[Job]:
    """Those that still wait in the queue though their client is gone or their time is up."""
    return [job for job in jobs if not job.taken and (job.request.gone or now > job.deadline)]
