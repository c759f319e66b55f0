"""The one thread that touches the model: it loads it, runs batches, and shows a heartbeat while it does.

Jobs come in by lists through one queue and go out by lists in one call: the hop between threads is paid once a batch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct

from leptonai.errors import LeptonError, ModelError
from leptonai.runtime.batching import LEVELS, Batcher, Job, Queue, enqueue, sweep
from leptonai.runtime.cost import Cost
from leptonai.runtime.faults import Faults
from leptonai.runtime.flow import MAX_OPEN, Step, Streams
from leptonai.runtime.http import Parts
from leptonai.runtime.loaders import one_line
from leptonai.runtime.metrics import Run
from leptonai.runtime.model import Model
from leptonai.runtime.predictions import summary

log = logging.getLogger(__name__)

IDLE = 1.0  # seconds without a job until the canned inference runs
STUCK = 0.01  # seconds until streams whose clients do not read are looked at again
SWEEP_EVERY = 0.02  # seconds between looks for jobs in the queue that nobody waits for
TRACEBACK_EVERY = 1.0  # seconds between tracebacks in the log: a failing model must not fill the disk


class Loaded(NamedTuple):
    """What loading made. ``canned``: runs the idle inference, raising when it fails; None when there is no example."""

    model: Model
    canned: Callable[[], None] | None
    retry_alone: bool  # a failed batch may be run again job by job: nothing happens twice in the outside world


class Answer(Struct, eq=False):
    """One job's outcome: ``body`` or ``error``; neither when its client was gone before it ran."""

    job: Job
    started: float  # monotonic seconds at which its batch began to run
    wait: float  # seconds its batch was held back to be filled
    body: bytes | Parts = b""
    error: LeptonError | None = None
    not_finite: int = 0  # numbers in the output that JSON cannot carry
    output: Any = None  # for the prediction log
    seconds: float = -1.0  # its batch took to compute; -1: it was not computed
    encoding: float = 0.0  # seconds it took to make ``body`` of what the model gave


class Compute:
    """``running`` is the heartbeat, (since, samples) or None; ``taken[level]`` counts samples taken off the queue.

    ``loaded``, ``failed``, ``notify`` and ``ran`` are called in the compute thread; ``ran`` is told of each run of
    the model.
    """

    def __init__(
        self,
        load: Callable[[], Loaded],
        loaded: Callable[[Loaded], None],
        failed: Callable[[LeptonError], None],
        notify: Callable[[], None],
        make: Callable[[Cost], Batcher],
        ran: Callable[[Run], None],
        faults: Faults,
        name: str,
        version: str,
    ) -> None:
        self._load, self._loaded, self._failed, self._notify, self._ran = load, loaded, failed, notify, ran
        self.cost = Cost()
        self.batcher = make(self.cost)
        self._faults = faults
        self._name, self._version = name, version
        self._inbox: SimpleQueue[list[Job] | Callable[[], None] | None] = SimpleQueue()
        self._guest: Callable[[], None] | None = None
        self._canned: Callable[[], None] | None = None
        self._queue: Queue = []
        self._outbox: deque[list[Answer | Step]] = deque()
        self._streams = Streams(self.wrap)
        self._notified = False
        self._swept = 0.0
        self._traced = 0.0
        self._model: Model
        self._retry_alone = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self.here = False  # the I/O loop runs in the compute thread
        self.running: tuple[float, int] | None = None
        self.taken = [0] * (LEVELS + 1)
        self.beat = monotonic()
        self.canned_error = ""

    def start(self) -> None:
        self._thread.start()

    def submit(self, jobs: list[Job]) -> None:
        """Hand over jobs in order of arrival; each comes back in exactly one Answer."""
        self._inbox.put(jobs)

    def batch_by(self, batcher: Batcher) -> None:
        """The next batch is made by ``batcher``; a wait for more is begun anew."""
        self.batcher = batcher
        self._inbox.put([])

    def host(self, guest: Callable[[], None]) -> None:
        """Call ``guest`` in the compute thread once what was submitted is computed; ``here`` is true meanwhile."""
        self._inbox.put(guest)

    def collect(self) -> list[Answer | Step]:
        """The answers made since the last call; ``notify`` is called once for as many as there are by then."""
        self._notified = False  # before taking: what is put in later notifies again
        answers: list[Answer | Step] = []
        while self._outbox:
            answers += self._outbox.popleft()
        return answers

    def stop(self, timeout: float) -> bool:
        """True when the thread has ended within ``timeout`` seconds."""
        self._inbox.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            loaded = self._load()
        except LeptonError as e:
            self._failed(e)
            return
        except BaseException as e:
            log.exception("the model does not load")
            self._failed(ModelError(f"the model does not load: {one_line(e)}", hint="see the replica's log"))
            return
        self._model, self._canned, self._retry_alone = loaded
        self._loaded(loaded)
        queue = self._queue
        opened = 0.0  # since when the batch waits to be filled; 0: it does not
        patience = IDLE
        while not self._stopping:
            self.beat = monotonic()
            if self._streams:
                self._take(STUCK if self._streams.stuck and not queue else 0.0)
                self._step()
                if not queue or len(self._streams) >= MAX_OPEN:
                    continue
            elif opened or not queue:
                if not self._take(patience) and not queue:
                    if not self._stopping:
                        self.idle()
                    continue
                if not queue:
                    self._serve_guest()
                    continue
            elif not self._inbox.empty():
                self._take(0.0)
            now = monotonic()
            if now - self._swept >= SWEEP_EVERY:
                self._swept = now
                if dead := sweep(queue, now):
                    self._send(self._refused(dead, now))
                    opened, patience = (opened, patience) if queue else (0.0, IDLE)
                    if not queue:
                        continue
            batch = self.batcher.next_batch(queue, now)
            if isinstance(batch, float):
                opened, patience = opened or now, batch
                continue
            wait, opened, patience = (now - opened if opened else 0.0), 0.0, IDLE
            self._send(self._batch(batch, now, wait))
            if self._guest is not None and not queue:
                self._serve_guest()

    def _send(self, answers: Sequence[Answer | Step]) -> None:
        if answers:
            self._outbox.append(list(answers))
            if not self._notified:
                self._notified = True
                self._notify()

    def _open(self, job: Job, now: float, wait: float) -> Sequence[Answer | Step]:
        """Begin an answer that is made step by step."""
        if job.request.gone or now > job.deadline:
            return [unwanted(job, now)]
        if self._faults.slow:
            time.sleep(self._faults.delay())
        self.running = (now, 1)
        step = self._streams.open(job, now)
        self.running = None
        return [step] if step is not None else []

    def _step(self) -> None:
        """One step of each stream."""
        for _ in range(len(self._streams)):
            began = monotonic()
            self.running = (began, 1)
            step = self._streams.step()
            self.running = None
            if step is not None:
                end = monotonic()
                self.cost.saw(1, end - began, end)
                self._send([step])

    def _serve_guest(self) -> None:
        guest, self._guest = self._guest, None
        if guest is not None:
            self.here = True
            try:
                guest()
            finally:
                self.here = False

    def _take(self, patience: float) -> bool:
        """Move what was submitted into the queue, waiting up to ``patience`` seconds; False when nothing came."""
        inbox = self._inbox
        try:
            jobs = inbox.get(timeout=patience) if patience else inbox.get_nowait()
            while True:
                if jobs is None:
                    self._stopping = True
                    return False
                if isinstance(jobs, list):
                    enqueue(self._queue, jobs)
                else:
                    self._guest = jobs
                if inbox.empty():
                    return True
                jobs = inbox.get_nowait()
        except Empty:
            return False

    def idle(self) -> None:
        """Run the idle inference, in the compute thread."""
        canned = self._canned
        if canned is None:
            return
        began = monotonic()
        self.running = (began, 1)
        if self._faults.slow:
            time.sleep(self._faults.delay())
        try:
            canned()
            end = monotonic()
            self.cost.saw(1, end - began, end)
            self.canned_error = ""
        except BaseException as e:  # noqa: BLE001 - see _run
            self.canned_error = one_line(e)
            self._trace("the idle inference fails")
        self.running = None

    def _batch(self, batch: list[Job], now: float, wait: float) -> Sequence[Answer | Step]:
        for job in batch:
            self.taken[job.priority] += job.samples
            (job.whole or job).taken = True
        if len(batch) == 1 and batch[0].whole is None:
            if batch[0].flow is not None:
                return self._open(batch[0], now, wait)
            return [self.one(batch[0], now, wait)]
        answers: list[Answer] = []
        live: list[Job] = []
        for job in batch:
            if job.request.gone or now > job.deadline:
                self._leave(job.whole or job)
                answers.append(unwanted(job.whole or job, now))
            else:
                live.append(job)
        if not live:
            return answers
        batch, samples = live, sum([job.samples for job in live])
        self.running = (now, samples)
        if self._faults.slow:
            time.sleep(self._faults.delay())
        try:
            results: list[Any] = self._model.run(batch)
            end = monotonic()
            self.cost.saw(samples, end - now, end)
            self._ran(Run(samples, end - now, True))
        except BaseException as e:  # noqa: BLE001 - see _run
            self._ran(Run(samples, monotonic() - now, False))
            results = self._alone(batch) if self._retry_alone else [self.wrap(e)] * len(batch)
            end = monotonic()
        self.running = None
        seconds = end - now
        for job, result in zip(batch, results, strict=True):
            if job.whole is None:
                answers.append(self._answer(job, result, now, wait, seconds))
            elif (answer := self._slice(job.whole, result, now, wait, seconds)) is not None:
                answers.append(answer)
        return answers

    def _slice(self, job: Job, result: Any, now: float, wait: float, seconds: float) -> Answer | None:
        """The answer of a job of which a slice was computed, once that was the last one, or fails."""
        job.began = job.began or now
        job.computed += seconds
        if isinstance(result, LeptonError):
            self._leave(job)
        else:
            job.results = [*(job.results or []), result]
            if job.sliced < job.samples:
                return None
            result = {name: np.concatenate([r[name] for r in job.results]) for name in result}
        return self._answer(job, result, job.began, wait, job.computed)

    def _leave(self, job: Job) -> None:
        """A job of which slices may still be queued is not computed any further."""
        if job in self._queue:
            self._queue.remove(job)
            self.taken[job.priority] += job.samples - job.sliced

    def _refused(self, dead: list[Job], now: float) -> list[Answer]:
        """The answers of jobs that nobody waits for."""
        for job in dead:
            self.taken[job.priority] += job.samples - job.sliced
        return [unwanted(job, now) for job in dead]

    def one(self, job: Job, now: float, wait: float = 0.0) -> Answer:
        """Run one job, in the compute thread."""
        if job.request.gone or now > job.deadline:
            return unwanted(job, now)
        body, error, not_finite, output, seconds, encoding = self.computed(job, now)
        return Answer(job, now, wait, body, error, not_finite, output, seconds, encoding)

    def computed(self, job: Job, now: float) -> tuple[bytes | Parts, LeptonError | None, int, Any, float, float]:
        """What ``Answer`` says of a job run alone: body, error, not_finite, output, seconds, encoding."""
        self.running = (now, job.samples)
        if self._faults.slow:
            time.sleep(self._faults.delay())
        body: bytes | Parts = b""
        model, end, not_finite, output, error = self._model, 0.0, 0, None, None
        try:
            result = model.run([job])[0]
            end = monotonic()
            body, not_finite = model.encode(job, result, self._name, self._version)
            output = summary(result)
        except BaseException as e:  # noqa: BLE001 - see _run
            body, error = b"", self.wrap(e)
        made = monotonic()
        seconds = (end or made) - now
        self.running = None
        self.cost.saw(job.samples, seconds, now)
        self._ran(Run(job.samples, seconds, end > 0.0))
        return body, error, not_finite, output, seconds, made - now - seconds

    def _answer(self, job: Job, result: Any, now: float, wait: float, seconds: float) -> Answer:
        try:
            if isinstance(result, LeptonError):
                raise result
            began = monotonic()
            body, not_finite = self._model.encode(job, result, self._name, self._version)
            encoding = monotonic() - began
            return Answer(job, now, wait, body, None, not_finite, summary(result), seconds, encoding)
        except BaseException as e:  # noqa: BLE001 - see _run
            return Answer(job, now, wait, b"", self.wrap(e), 0, None, seconds)

    def _alone(self, jobs: list[Job]) -> list[Any]:
        """Results or errors of jobs run one by one: the culprit of a failed batch fails alone."""
        results: list[Any] = []
        for job in jobs:
            began = monotonic()
            self.running = (began, job.samples)
            try:
                results += self._model.run([job])
                good = True
            except BaseException as e:  # noqa: BLE001 - see _run
                results.append(self.wrap(e))
                good = False
            self._ran(Run(job.samples, monotonic() - began, good, again=True))
        return results

    def wrap(self, e: BaseException) -> LeptonError:
        """What a model raised, as an error of ours; foreign ones go to the log. Callable in any thread."""
        if isinstance(e, LeptonError):
            return e
        self._trace("the model fails")
        return ModelError(
            f"the model failed: {one_line(e)}", code="model_failed", hint="the replica's log has the whole story"
        )

    def _trace(self, text: str) -> None:
        now = monotonic()
        if now - self._traced >= TRACEBACK_EVERY:
            self._traced = now
            log.exception(text)


def unwanted(job: Job, now: float) -> Answer:
    """The answer of a job that is not computed: its client is gone, or its time is up."""
    gone = job.request.gone
    return Answer(job, now, 0.0, error=None if gone else _late(now - job.arrived, job.deadline - job.arrived))


def _late(waited: float, limit: float) -> LeptonError:
    return LeptonError(
        f"waited {waited:.3f} s in the queue, over the limit of {limit:g} s",
        hint="the replica is overloaded: add replicas, or allow more time",
        code="timeout",
        status=504,
        retry=True,
    )
