"""The one thread that touches the model: it loads it, runs batches, and shows a heartbeat while it does.

Jobs come in by lists through one queue and go out by lists in one call: the hop between threads is paid once a batch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from leptonai.errors import LeptonError, ModelError
from leptonai.runtime.batching import Batcher, Job
from leptonai.runtime.faults import Faults
from leptonai.runtime.health import Cost, Running
from leptonai.runtime.loaders import one_line
from leptonai.runtime.model import Model
from leptonai.runtime.predictions import summary

log = logging.getLogger(__name__)

IDLE = 1.0  # seconds without a job until the canned inference runs
TRACEBACK_EVERY = 1.0  # seconds between tracebacks in the log: a failing model must not fill the disk


class Loaded(NamedTuple):
    """What loading made. ``canned``: runs the idle inference, raising when it fails; None when there is no example."""

    model: Model
    canned: Callable[[], None] | None
    retry_alone: bool  # a failed batch may be run again job by job: nothing happens twice in the outside world


class Answer(NamedTuple):
    """One job's outcome: ``body`` or ``error``; neither when its client was gone before it ran."""

    job: Job
    body: bytes = b""
    error: LeptonError | None = None
    not_finite: int = 0
    output: Any = None


class Done(NamedTuple):
    """One batch's outcome. Times on the monotonic clock, durations in seconds; ``samples`` 0: nothing was computed."""

    answers: list[Answer]
    started: float
    wait: float
    seconds: float
    samples: int


class Compute:
    """``running`` is the heartbeat; ``taken`` counts samples taken off the queue since the start."""

    def __init__(
        self,
        load: Callable[[], Loaded],
        loaded: Callable[[Loaded], None],
        failed: Callable[[LeptonError], None],
        deliver: Callable[[Done], None],
        batcher: Batcher,
        faults: Faults,
        timeout: float,
        name: str,
        version: str,
    ) -> None:
        self._load, self._loaded, self._failed, self._deliver = load, loaded, failed, deliver
        self._batcher, self._faults, self._timeout = batcher, faults, timeout
        self._name, self._version = name, version
        self._inbox: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._queue: deque[Job] = deque()
        self._cost = Cost()
        self._traced = 0.0
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self.running: Running | None = None
        self.taken = 0
        self.beat = time.monotonic()
        self.canned_error = ""

    def start(self) -> None:
        self._thread.start()

    def submit(self, jobs: list[Job]) -> None:
        """Hand over jobs in order of arrival; each comes back in exactly one Done."""
        self._inbox.put(jobs)

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
        model = loaded.model
        self._loaded(loaded)
        queue, inbox = self._queue, self._inbox
        opened = 0.0  # since when the batch waits to be filled; 0: it does not
        patience = IDLE
        while True:
            self.beat = time.monotonic()
            try:
                item = inbox.get(timeout=patience) if not queue or opened else None
                while True:
                    if item is not None:
                        queue.extend(item)
                    elif not queue:
                        return
                    if inbox.empty():
                        break
                    item = inbox.get_nowait()
            except Empty:
                if not queue:
                    self._idle(loaded.canned)
                    continue
            now = time.monotonic()
            batch = self._batcher.next_batch(queue, now)
            if isinstance(batch, float):
                opened = opened or now
                patience = batch
                continue
            wait, opened, patience = (now - opened if opened else 0.0), 0.0, IDLE
            self._deliver(self._batch(model, batch, now, wait, loaded.retry_alone))

    def _idle(self, canned: Callable[[], None] | None) -> None:
        if canned is None:
            return
        began = time.monotonic()
        self.running = Running(began, self._cost.expect(1, began), 1)
        delay = self._faults.delay()
        if delay:
            time.sleep(delay)
        try:
            canned()
            self.canned_error = ""
        except BaseException as e:  # noqa: BLE001 - see _run
            self.canned_error = one_line(e)
            self._trace("the idle inference fails")
        self.running = None

    def _batch(self, model: Model, batch: list[Job], now: float, wait: float, retry_alone: bool) -> Done:
        answers: list[Answer] = []
        live: list[Job] = []
        samples = 0
        for job in batch:
            self.taken += job.samples
            if job.request.gone:
                answers.append(Answer(job))
            elif now - job.arrived > (job.deadline or self._timeout):
                answers.append(Answer(job, error=_late(now - job.arrived, job.deadline or self._timeout)))
            else:
                live.append(job)
                samples += job.samples
        if not live:
            return Done(answers, now, wait, 0.0, 0)
        self.running = Running(now, self._cost.expect(samples, now), samples)
        delay = self._faults.delay()
        if delay:
            time.sleep(delay)
        try:
            results: list[Any] = model.run(live)
        except BaseException as e:  # noqa: BLE001 - see _run
            results = self._alone(model, live) if len(live) > 1 and retry_alone else [self._wrap(e)] * len(live)
        end = time.monotonic()
        self.running = None
        self.canned_error = ""
        self._cost.learn(samples, end - now, end)
        self._batcher.observe(samples, end - now)
        for job, result in zip(live, results, strict=True):
            answers.append(self._encoded(model, job, result))
        return Done(answers, now, wait, end - now, samples)

    def _alone(self, model: Model, jobs: list[Job]) -> list[Any]:
        """Results or errors of jobs run one by one: the culprit of a failed batch fails alone."""
        results: list[Any] = []
        for job in jobs:
            now = time.monotonic()
            self.running = Running(now, self._cost.expect(job.samples, now), job.samples)
            try:
                results += model.run([job])
            except BaseException as e:  # noqa: BLE001 - see _run
                results.append(self._wrap(e))
        return results

    def _encoded(self, model: Model, job: Job, result: Any) -> Answer:
        if isinstance(result, LeptonError):
            return Answer(job, error=result)
        try:
            body, not_finite = model.encode(job, result, self._name, self._version)
            return Answer(job, body, None, not_finite, summary(result))
        except BaseException as e:  # noqa: BLE001 - see _run
            return Answer(job, error=self._wrap(e))

    def _wrap(self, e: BaseException) -> LeptonError:
        if isinstance(e, LeptonError):
            return e
        self._trace("the model fails")
        return ModelError(
            f"the model failed: {one_line(e)}", code="model_failed", hint="the replica's log has the whole story"
        )

    def _trace(self, text: str) -> None:
        now = time.monotonic()
        if now - self._traced >= TRACEBACK_EVERY:
            self._traced = now
            log.exception(text)


def _late(waited: float, limit: float) -> LeptonError:
    return LeptonError(
        f"waited {waited:.3f} s in the queue, over the limit of {limit:g} s",
        hint="the replica is overloaded: add replicas, or allow more time",
        code="timeout",
        status=504,
        retry=True,
    )
