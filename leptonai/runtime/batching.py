"""Which waiting jobs run together next. Pure: the clock is a parameter, the queue a deque."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from msgspec import Struct

from leptonai.types import Batching


class Job(Struct, eq=False):
    """One inference to run: its arguments, how many samples they hold, and what it can share a batch with."""

    inputs: dict[str, Any]
    samples: int
    key: Any  # jobs of equal keys may share a batch; None: this one runs alone
    asked: Any = None  # the InferRequest it came from; None: /predict
    allowed: float = 0.0  # seconds from arrival to the begin of computing; 0: the service's timeout
    arrived: float = 0.0  # monotonic seconds
    deadline: float = 0.0  # monotonic seconds after which nobody waits for it
    request: Any = None
    flow: Any = None  # a flow.Flow when the answer is made step by step; such a job has no key
    began: float = 0.0  # monotonic seconds at which the first piece was sent


class Batcher(Protocol):
    """The seam of batching policies. Jobs of no key run alone and are not observed."""

    def next_batch(self, queue: deque[Job], now: float) -> list[Job] | float:
        """Take the next batch out of the non-empty ``queue``, or say for how many seconds to wait for more."""

    def observe(self, samples: int, seconds: float) -> None:
        """A batch of ``samples`` took ``seconds`` to compute."""


class Eager:
    """Size and wait: take what is queued, up to ``max_size`` samples, once the oldest has waited ``max_wait`` seconds.

    Order is first in, first out by the head; jobs of the head's key join it, others keep their places. A job larger
    than ``max_size`` runs as its own batch.
    """

    def __init__(self, limits: Batching) -> None:
        self.limits = limits

    def next_batch(self, queue: deque[Job], now: float) -> list[Job] | float:
        head = queue[0]
        if head.key is None:
            return [queue.popleft()]
        room = self.limits.max_size
        batch: list[Job] = []
        kept: list[Job] = []
        while queue and room > 0:
            job = queue.popleft()
            if job.key == head.key and (job.samples <= room or not batch):
                batch.append(job)
                room -= job.samples
            else:
                kept.append(job)
        waited = now - head.arrived
        if room > 0 and waited < self.limits.max_wait:
            # put everything back in order of arrival: the batch may still grow
            queue.extendleft(reversed(sorted([*batch, *kept], key=lambda job: job.arrived)))
            return self.limits.max_wait - waited
        queue.extendleft(reversed(kept))
        return batch

    def observe(self, samples: int, seconds: float) -> None:
        """Eager does not learn."""
