"""Which waiting jobs run together next. Pure: the clock is a parameter, the queue a list, nothing is computed here.

Order, whatever the policy:

- the highest level of priority leads, within it the oldest job; but after ``PASSES`` batches in a row that went past
  the oldest job of all, that one leads: no level starves;
- jobs that can share the leader's batch join it in the same order, as far as samples and bytes have room, and none goes
  past one of its own level that did not fit;
- a job larger than a batch is computed in slices. A slice-only batch is followed by one that a whole job leads, when
  one of that level waits; what is left of that batch is a slice again. So a large request gets every second batch or
  more, a small one waits for at most one slice more than those before it, and no batch is over its cap.
"""

from __future__ import annotations

from bisect import bisect_right
from math import ceil
from operator import attrgetter
from typing import Any, Protocol

from msgspec import Struct

from leptonai.runtime.cost import Cost
from leptonai.types import Batching, Tuning

LEVELS = 9  # of priority, 1 the highest
USUAL = 5  # the level of a request that names none, so that others can go before and after it
PASSES = 8  # batches that may go past the oldest job in a row
ENOUGH = 0.99  # of the best throughput: past it a larger batch only makes its members wait
HOP = 50e-6  # seconds a batch costs beside its run: two hops between threads and their bookkeeping
WORTH = 1e-3  # seconds of fixed cost from which it is worth asking whether to wait: timers are no finer
WAITS = (0.125, 0.25, 0.5)  # of the fixed cost: how long it may be worth waiting
PAYS = 0.1  # of the time that requests spend: what waiting must have saved on the batches of late
EVER = float("inf")


class Job(Struct, eq=False):
    """One inference to run: its arguments, how many samples they hold, and what it can share a batch with."""

    inputs: dict[str, Any]
    samples: int
    key: Any  # jobs of equal keys may share a batch; None: this one runs alone
    asked: Any = None  # the InferRequest it came from; None: /predict
    allowed: float = 0.0  # seconds from arrival to the answer; 0: the service's timeout
    arrived: float = 0.0  # monotonic seconds
    decoded: float = 0.0  # monotonic seconds at which the request had become a job
    deadline: float = EVER  # monotonic seconds after which nobody waits for it
    request: Any = None
    flow: Any = None  # a flow.Flow when the answer is made step by step; such a job has no key
    door: Any = None  # an openai.Door when another method than predict computes it
    began: float = 0.0  # monotonic seconds at which the first piece was sent, or the first slice began to run
    computed: float = 0.0  # seconds that its slices took to compute
    priority: int = USUAL
    bytes: int = 0  # of the request's body
    test: bool = False  # operations ask it: it is answered and not counted
    whole: Job | None = None  # the job that this one is a slice of
    sliced: int = 0  # samples that have left the queue in slices
    results: list[Any] | None = None  # of the slices computed so far
    taken: bool = False  # some of it has left the queue to be computed
    left: bool = False  # it was answered while it waited: what the compute thread says of it is for nobody


Queue = list[Job]  # by priority, then arrival
_LEVEL = attrgetter("priority")


def enqueue(queue: Queue, jobs: list[Job]) -> None:
    """Add ``jobs``, each behind those of its level."""
    for job in jobs:
        if not queue or queue[-1].priority <= job.priority:
            queue.append(job)
        else:
            queue.insert(bisect_right(queue, job.priority, key=_LEVEL), job)


def sweep(queue: Queue, now: float) -> list[Job]:
    """Take out and return the jobs that nobody waits for: their client is gone, or their time is up."""
    dead = [job for job in queue if job.request.gone or now > job.deadline]
    if dead:
        queue[:] = [job for job in queue if not (job.request.gone or now > job.deadline)]
    return dead


class Batcher(Protocol):
    """The seam of batching policies."""

    size: int  # samples that the last batch might have held

    def next_batch(self, queue: Queue, now: float) -> list[Job] | float:
        """Take the next batch out of the non-empty ``queue``, or say for how many seconds to wait for more."""


def batcher(tuning: Tuning, cost: Cost) -> Batcher:
    """The policy that the wish names."""
    return Eager(tuning.batching) if tuning.batching.policy == "eager" else Adaptive(tuning, cost)


class Eager:
    """Size and wait: take what is queued, up to ``max_size``, once the oldest has waited ``max_wait`` seconds."""

    def __init__(self, limits: Batching) -> None:
        self._limits, self._order = limits, Order(limits)
        self.size = limits.max_size

    def next_batch(self, queue: Queue, now: float) -> list[Job] | float:
        lead = self._order.lead(queue)
        limits, waited = self._limits, now - lead.arrived
        if lead.key is None or waited >= limits.max_wait:
            return self._order.take(queue, lead, limits.max_size)
        if sum([job.samples - job.sliced for job in queue if job.key == lead.key]) >= limits.max_size:
            return self._order.take(queue, lead, limits.max_size)
        return limits.max_wait - waited


class Adaptive:
    """The largest batch that pays, or a smaller one that keeps more promises; waits where that would have paid of late.

    With the learnt t(n) = a n + b, the size is the least n that reaches ``ENOUGH`` of the throughput n / t(n) of a full
    batch (or a full one, if that n is over half of it). When such a batch would end after the leader's time (what is
    left of the SLO's latency, or of its own deadline when that is sooner), the n that ends in time is taken instead, if
    it keeps up with the pace of late and more of those that wait are then answered in theirs: for one request's sake
    the queue must not grow. No job joins a batch that would end after its deadline.
    """

    def __init__(self, tuning: Tuning, cost: Cost) -> None:
        self._limits, self._latency, self._cost = tuning.batching, tuning.latency, cost
        self._order, self._hindsight = Order(tuning.batching), Hindsight(cost)
        self._samples = self._seconds = self._last = 0.0  # computed of late, and in which time
        self.size = tuning.batching.max_size

    def next_batch(self, queue: Queue, now: float) -> list[Job] | float:
        cost = self._cost.learn()
        lead = self._order.lead(queue)
        if lead.key is None or not cost.runs:
            self.size = self._limits.max_size
            return self._order.take(queue, lead, self.size)
        self.size = size = self._size(queue, lead, now)
        ask = cost.fixed >= WORTH
        if ask:
            self._hindsight.look(queue)
            waiting = sum([job.samples - job.sliced for job in queue])
            patience = self._hindsight.patience(waiting, now)
            if waiting < size and patience > 0.0 and now + patience + cost.time(waiting + 1) <= self._due(lead, now):
                return patience
        batch = self._order.take(queue, lead, size, cost, now)
        self._samples = 0.9 * self._samples + sum([job.samples for job in batch])
        self._seconds = 0.9 * self._seconds + (now - self._last if self._last else 0.0)
        self._last = now
        if ask:
            self._hindsight.took(batch, now, not queue)
        return batch

    def _due(self, lead: Job, now: float) -> float:
        """By when a batch led by it should end: what it was promised, else what it allows."""
        promised = lead.arrived + self._latency
        return min(promised, lead.deadline) if promised > now + self._cost.time(1) else lead.deadline

    def _size(self, queue: Queue, lead: Job, now: float) -> int:
        cost = self._cost
        size = worthwhile(cost, self._limits.max_size)
        if cost.per_sample <= 0.0:
            return size
        within = int((self._due(lead, now) - now - cost.fixed) / cost.per_sample)
        if not 1 <= within < size or len(queue) == 1:
            return size
        if within * self._seconds < self._samples * cost.time(within):
            return size  # it would not keep up with what comes
        return within if self._kept(queue, within, now) > self._kept(queue, size, now) else size

    def _kept(self, queue: Queue, size: int, now: float) -> int:
        """How many that wait now are answered in time when batches hold at most so many samples."""
        kept = total = 0
        each = self._cost.time(size)
        for job in queue:
            total += job.samples - job.sliced
            ends = now + (total - 1) // size * each + each
            kept += ends <= min(job.arrived + self._latency, job.deadline)
        return kept


def worthwhile(cost: Cost, cap: int) -> int:
    """The least n of which n / t(n) reaches ``ENOUGH`` of that of ``cap``; ``cap`` when that is over half of it."""
    if cost.per_sample <= 1e-12:
        return cap
    ratio = (cost.fixed + HOP) / cost.per_sample  # n / t(n) is proportional to n / (n + ratio)
    share = ENOUGH * cap / (cap + ratio)
    least = max(1, ceil(share * ratio / (1.0 - share)))
    return least if 2 * least <= cap else cap


class Order:
    """Who leads the next batch, and who joins it. Remembers only whose turn it is."""

    def __init__(self, limits: Batching) -> None:
        self._cap, self._bytes = limits.max_size, limits.max_bytes
        self._passes = 0  # batches in a row that went past the oldest job
        self._slice = False  # the last batch was a slice and nothing else

    def large(self, job: Job) -> bool:
        """Whether it is computed in slices. Once it is, it stays so, whatever the limits become."""
        return job.sliced > 0 or (
            job.key is not None and job.samples > 1 and (job.samples > self._cap or job.bytes > self._bytes)
        )

    def lead(self, queue: Queue) -> Job:
        """The job that the next batch is made around. Nothing changes until ``take``."""
        lead = queue[0]
        if self._passes >= PASSES and queue[-1].priority > lead.priority:
            return self._oldest(queue)
        if self._slice and self.large(lead):
            for job in queue:
                if job.priority > lead.priority:
                    break
                if not self.large(job):
                    return job
        return lead

    def take(self, queue: Queue, lead: Job, size: int, cost: Cost | None = None, now: float = 0.0) -> list[Job]:
        """Take a batch around ``lead`` out of the queue: at most ``size`` samples, unless one whole job is more."""
        if queue[-1].priority > queue[0].priority:
            self._passes = 0 if lead is self._oldest(queue) else self._passes + 1
        else:
            self._passes = 0
        if lead.key is None or (lead is queue[0] and len(queue) == 1 and not self.large(lead)):
            queue.remove(lead)
            self._slice = False
            return [lead]
        batch: list[Job] = []
        kept: Queue = []
        large: Job | None = None
        room = self._bytes
        if self.large(lead):
            large = lead
            batch.append(self._cut(lead, size, room))
        else:
            batch.append(lead)
        if large is None or lead.sliced >= lead.samples:
            queue.remove(lead)
        total, room = batch[0].samples, room - batch[0].bytes
        ends = now + cost.time(size) if cost else -EVER
        full = False
        for at, job in enumerate(queue):
            if full:
                kept += queue[at:]
                break
            if job is lead or job.key != lead.key:
                kept.append(job)
            elif self.large(job):
                large = large or job
                kept.append(job)
            else:
                if cost and job.deadline < ends:
                    most = int((job.deadline - now - cost.fixed) / cost.per_sample) if cost.per_sample else size
                    size = min(size, most) if most >= total + job.samples else total
                if total + job.samples > size or job.bytes > room:
                    full = True
                    kept.append(job)
                else:
                    batch.append(job)
                    total += job.samples
                    room -= job.bytes
        queue[:] = kept
        self._slice = large is lead and len(batch) == 1
        if large is not None and large is not lead and total < size and large.bytes <= room * large.samples:
            batch.append(self._cut(large, size - total, room))
            if large.sliced >= large.samples:
                queue.remove(large)
        return batch

    def _cut(self, job: Job, samples: int, room: int) -> Job:
        """A slice of at most so many samples, at least one."""
        each = job.bytes / job.samples
        if each * samples > room:
            samples = int(room / each)
        start = job.sliced
        stop = job.sliced = min(job.samples, start + max(1, samples))
        return Job(
            {name: array[start:stop] for name, array in job.inputs.items()},
            stop - start,
            job.key,
            arrived=job.arrived,
            deadline=job.deadline,
            request=job.request,
            priority=job.priority,
            bytes=int(each * (stop - start)),
            whole=job,
            door=job.door,
        )

    @staticmethod
    def _oldest(queue: Queue) -> Job:
        return min(queue, key=attrgetter("arrived"))


class Hindsight:
    """Would waiting have paid? Asked of each batch that emptied the queue, once it is known who came after it.

    k samples were there when it began; N more came within d seconds, M more while it ran. Begun at once, the N + M are
    computed behind it; begun d later, the N share its run, and only the M are behind. The difference of the times that
    all of them spend, for a few d, is averaged over some 10 batches: waiting begins, and goes on, only while that is
    a gain. Steady arrivals make none, as the next batch is needed anyway; bursts, as of clients that all wait for one
    batch's answers, do.
    """

    def __init__(self, cost: Cost) -> None:
        self._cost = cost
        self.gains = [0.0] * len(WAITS)
        self._opened = self._began = 0.0
        self._had = 0  # samples that were there when it opened; 0: no batch to judge
        self._came: list[tuple[float, int]] = []
        self._waiting = False

    def patience(self, waiting: int, now: float) -> float:
        """Seconds to wait for more, with ``waiting`` samples there; 0: begin."""
        if not self._waiting:
            self._opened, self._had, self._waiting = now, waiting, True
        best = max(range(len(WAITS)), key=self.gains.__getitem__)
        if self.gains[best] <= PAYS:
            return 0.0
        return max(0.0, self._opened + WAITS[best] * self._cost.fixed - now)

    def took(self, batch: list[Job], now: float, all: bool) -> None:
        """The batch begins. ``all``: nothing is left in the queue."""
        self._waiting = False
        self._began = now
        self._came = [(job.arrived, job.samples) for job in batch if job.arrived > self._opened]
        self._had = self._had if all else 0

    def look(self, queue: Queue) -> None:
        """Judge the last batch by who has come since. A batch is judged once."""
        if self._waiting or not self._had:
            return
        cost, k = self._cost, self._had
        took = k + sum([n for _, n in self._came])
        ended = self._began + cost.time(took)
        came = self._came + [(j.arrived, j.samples - j.sliced) for j in queue if self._opened < j.arrived <= ended]
        self._had = 0
        for at, share in enumerate(WAITS):
            wait = share * cost.fixed
            joined = sum([n for arrived, n in came if arrived <= self._opened + wait])
            behind = sum([n for _, n in came]) - joined
            now_ = k * cost.time(k) + (joined + behind) * (cost.time(k) + _run(cost, joined + behind))
            then = (k + joined) * (wait + cost.time(k + joined))
            then += behind * (wait + cost.time(k + joined) + _run(cost, behind))
            self.gains[at] += 0.1 * ((now_ - then) / now_ - self.gains[at])


def _run(cost: Cost, samples: int) -> float:
    return cost.time(samples) if samples else 0.0
