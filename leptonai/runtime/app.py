"""What a replica answers: routes, probes and faults on the I/O loop, inference through the compute thread."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from leptonai.errors import CapacityError, LeptonError, SpecError
from leptonai.runtime import about, background, loaders
from leptonai.runtime.answers import LastAnswers
from leptonai.runtime.asgi import Mounted
from leptonai.runtime.background import BACKGROUND
from leptonai.runtime.batching import Job, batcher
from leptonai.runtime.compute import IDLE, Answer, Compute, Loaded, unwanted
from leptonai.runtime.cost import LONG
from leptonai.runtime.doors import Doors
from leptonai.runtime.faults import Faults
from leptonai.runtime.flow import Step
from leptonai.runtime.health import STALE_GRACE, Phase, Readiness, Running, readiness
from leptonai.runtime.http import BINARY, JSON, Connection, Parts, Request
from leptonai.runtime.loading import load
from leptonai.runtime.metrics import Metrics, Run
from leptonai.runtime.model import Model
from leptonai.runtime.openai import error_body
from leptonai.runtime.pages import Pages, Route
from leptonai.runtime.predictions import PredictionLog, summary
from leptonai.runtime.quarantine import Quarantine
from leptonai.runtime.shed import admit, schedule
from leptonai.runtime.waiting import Waiting
from leptonai.types import TEST_HEADER, Launch, Tuning, parse_key

log = logging.getLogger(__name__)

MAX_BODY = 64 << 20  # bytes of one request; the environment variable LEPTONAI_MAX_BODY overrides it
READ_TIMEOUT = 30.0  # seconds a request may take to arrive; the environment variable LEPTONAI_READ_TIMEOUT overrides it
IDLE_BEFORE_EXIT = 0.5  # seconds without a request until a replica told to stop does stop
TEST = TEST_HEADER.encode()
KINDS = {422: "quarantined", 429: "shed", 500: "model_failed", 503: "starting", 504: "timeout"}


class App:
    """The handler of all connections. Everything here runs on the I/O loop."""

    def __init__(
        self,
        launch: Launch,
        loop: asyncio.AbstractEventLoop,
        max_body: float = MAX_BODY,
        read_timeout: float = READ_TIMEOUT,
        secret: str = "",
    ) -> None:
        """``secret``: of who may give orders over TCP; "": nobody may."""
        self._launch = launch
        variant = launch.variant
        self.tuning = Tuning(batching=variant.batching, latency=launch.latency, timeout=launch.timeout)
        self._loop = loop
        self.name = parse_key(launch.service)[1]
        self.version = str(launch.revision)
        self.max_body, self.read_timeout = int(max_body), read_timeout
        self.closing = False
        self.connections: set[Connection] = set()
        self.clock = time.monotonic
        self.metrics = Metrics()
        self.predictions = PredictionLog(
            Path(launch.run_dir) / "predictions", launch.prediction_log_bytes, launch.variant.digest
        )
        self.answers = LastAnswers()  # for the edge
        self.recorded = LastAnswers()  # for operations, while a new version waits for them
        self.faults = Faults()
        self.compute = Compute(
            self._load,
            lambda loaded: self._soon(self._on_loaded, loaded),
            lambda error: self._soon(self._on_failed, error),
            lambda: self._soon(self._deliver),
            lambda cost: batcher(self.tuning, cost),
            self.metrics.ran.append,
            self.faults,
            self.name,
            self.version,
        )
        self.done: asyncio.Future[LeptonError | None] = loop.create_future()
        self.drain, self.socket, self.secret = launch.drain, launch.socket, secret
        self._halted: asyncio.TimerHandle | None = None
        self._unheard: list[Request] = []  # while halted
        self.model: Model | None = None
        self._phase: Phase = "starting"
        self._failure: LeptonError | None = None
        self._seen: Readiness | None = None
        self.since = time.time()
        self.in_flight = 0
        self.waiting = Waiting(loop, self.compute, self._give_up)
        self._outgoing: list[Job] = []
        self.answered = 0.0  # unix seconds of the last inference
        self._active = 0.0  # when an inference was last received or answered
        self._id_prefix = os.urandom(6).hex().encode()
        self._id_number = 0
        self._routes = Pages(self).routes()
        self.doors: Doors | None = None  # once there is a model
        self._decoders: dict[bytes, Callable[[bytes, bytes], Job]] = {}  # Doors.quick
        self._app: Mounted | None = None
        self._quarantine: Quarantine | None = None  # while some requests are refused for what they bring

    def _soon(self, call: Callable[..., None], *values: Any) -> None:
        """Called in the compute thread: run on the loop."""
        try:
            self._loop.call_soon_threadsafe(call, *values)
        except RuntimeError:  # the loop has closed: nobody is left to be told
            pass

    # --- loading, in the compute thread -----------------------------------------------------------------------------

    def _load(self) -> Loaded:
        loaded = load(self._launch)
        if loaded.model.app is not None:
            self._app = Mounted(loaded.model.app, self._soon)
            self._app.start()
        return loaded

    def _on_loaded(self, loaded: Loaded) -> None:
        model = self.model = loaded.model
        self.doors = Doors(model, self.name, self.version, self.max_body)
        self._decoders = self.doors.quick
        if self._phase == "starting":
            self._phase = "serving"
        log.info("ready: %s as %s", loaded.model.platform, self.name)

    def _on_failed(self, error: LeptonError) -> None:
        self._phase, self._failure = "failed", error
        log.error("%s (%s)", error.message, error.hint)
        if not self.done.done():
            self.done.set_result(error)

    # --- requests ---------------------------------------------------------------------------------------------------

    def make_id(self) -> bytes:
        self._id_number += 1
        return b"%b-%x" % (self._id_prefix, self._id_number)

    def refused(self, code: int) -> None:
        self.metrics.requests.add(str(code))
        self.metrics.errors.add("bad_request")

    def halt(self, seconds: float) -> None:
        """From now on nothing is answered but orders to heal, as if the process had been stopped; 0 ends it."""
        if self._halted is not None:
            self._halted.cancel()
            self._halted = None
        if seconds > 0:
            self._halted = self._loop.call_later(seconds, self.halt, 0.0)
            return
        unheard, self._unheard = self._unheard, []
        for request in unheard:
            self.handle(request)

    def handle(self, request: Request) -> None:
        if self._halted is not None and request.target != b"/-/fault":
            self._unheard.append(request)
            return
        decode = self._decoders.get(request.target)
        try:
            if decode is not None and request.method == b"POST":
                headers = request.headers
                if b"content-encoding" not in headers:
                    try:
                        job = decode(request.body, headers.get(b"inference-header-content-length", b""))
                    except SpecError:
                        # Headers may be spelled in capitals; gateways do not.
                        if not any(map(request.header, (b"content-encoding", b"inference-header-content-length"))):
                            raise
                    else:
                        self._submit(request, job)
                        return
            route = self._routes.get(request.target)
            if route is None:
                route = self._find(request)
            if request.method not in route.methods:
                allowed = b", ".join(route.methods)
                error = SpecError(
                    f"{request.method.decode()} is not allowed here", hint=f"use {allowed.decode()}", status=405
                )
                request.answer(405, orjson.dumps(error.body()), b"\r\nallow: " + allowed)
                return
            route.handle(request)
        except Exception as e:
            if not isinstance(e, LeptonError):
                log.exception("a request fails inside the replica")
                e = LeptonError(f"internal error: {loaders.one_line(e)}", hint="see the replica's log")
            route, counted = self._routes.get(request.target.partition(b"?")[0]), TEST not in request.headers
            self.metrics.refused += counted and route is not None and route.handle == self.infer
            self.refuse(request, e, counted)

    def refuse(self, request: Request, error: LeptonError, counted: bool = True) -> None:
        if counted:
            self.metrics.requests.add(str(error.status))
            self.metrics.errors.add(KINDS.get(error.status, "bad_request"))
        if request.target.startswith(b"/v1/"):
            request.fail(error, error_body(error))
        else:
            request.fail(error)

    def _find(self, request: Request) -> Route:
        """The route of a target that has a query or percent-encoding, or the app's. NotFound says what is there."""
        path = unquote_to_bytes(request.target.partition(b"?")[0])
        route = self._routes.get(path)
        if route is not None:
            return route
        if path.startswith(b"/v2/repository/models/") and path.endswith((b"/load", b"/unload")):
            return Route((b"POST",), Pages(self).repository)
        ours = path.startswith((b"/-/", b"/v2/models/", b"/v2/repository/"))
        if self._app is not None and self.model is not None and not ours:
            return Route((request.method,), self._mounted)
        raise about.nothing_at(path.decode("utf-8", "replace"), self.name, self.version)

    def infer(self, request: Request) -> None:
        """An inference that needs more than its body, that comes before there is a model, or is spelled unusually."""
        self.ready_model()
        assert self.doors is not None
        self._submit(request, self.doors.job(request))

    def _mounted(self, request: Request) -> None:
        assert self._app is not None
        self.in_flight += 1
        self._app.handle(request, lambda code: self._app_answered(request, code))

    def _app_answered(self, request: Request, code: int) -> None:
        self.in_flight -= 1
        self._active = self.clock()
        self.metrics.requests.add(str(code))

    def ready_model(self) -> Model:
        """The loaded model. 503 ``starting`` before there is one."""
        if self.model is None:
            raise LeptonError(
                "the model is being loaded",
                hint="try again soon",
                code="starting",
                status=503,
                retry=True,
                retry_after=1,
            )
        return self.model

    def _submit(self, request: Request, job: Job) -> None:
        if self.faults.failing and self.faults.fails():
            raise LeptonError("an injected fault", hint="a drill is running", code="injected", retry=True)
        if self._quarantine is not None:
            self._quarantine.check(job.inputs)
        headers = request.headers
        if b"x-timeout-us" in headers or b"x-priority" in headers:
            schedule(job, headers)
        job.test = TEST in headers
        job.request = request
        job.arrived = request.arrived
        job.deadline = request.arrived + (job.allowed or self.tuning.timeout)
        job.decoded = now = self.clock()
        if job.flow is not None and job.flow.asynchronous:
            self._begin(request, job)
            return
        if self.compute.here:  # what arrives is computed at once: nothing waits
            self.in_flight += 1
            self._compute_here(job, now)
            return
        job.bytes = len(request.body)
        alone = self.model is not None and self.model.alone
        admit(job, self.tuning.batching, self.waiting.submitted, self.compute, alone)
        self.waiting.add(job)
        self.in_flight += 1
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(job)

    def _begin(self, request: Request, job: Job) -> None:
        """Run an asynchronous job beside the compute thread. The queue's limit is that of those under way."""
        if self.in_flight >= self.tuning.batching.max_queue:
            raise CapacityError(
                f"{self.in_flight} requests are under way, the limit is {self.tuning.batching.max_queue}",
                hint="send slower, or add replicas",
                code="shed",
                status=429,
                retry_after=1,
            )
        self.in_flight += 1
        emit = partial(self._soon, self._stepped)
        request.left = BACKGROUND.begin(background.run(job, emit, self.compute.wrap))

    def _flush(self) -> None:
        """Hand everything that arrived in this turn of the loop to the compute thread at once."""
        jobs, self._outgoing = self._outgoing, []
        if self.compute.here:  # the loop has moved since they arrived; this may be the first that it does there
            asyncio._set_running_loop(None)
            for job in jobs:
                self.compute.taken[job.priority] += job.samples
                self.waiting.leaves(job)
                self._compute_here(job, self.clock())
        else:
            self.compute.submit(jobs)

    def _give_up(self, job: Job, now: float) -> None:
        self._settle(unwanted(job, now), now, time.time())

    def _compute_here(self, job: Job, began: float) -> None:
        """Run, answer, count and log a job at once. Written flat: this is most of what a short request costs."""
        request: Request = job.request
        if request.gone or began > job.deadline:
            self._settle(self.compute.one(job, began), began, time.time())
            return
        body, error, not_finite, output, seconds, encoding = self.compute.computed(job, began)
        if error is not None or not_finite or job.test or request.asked is not None:
            answer = Answer(job, began, 0.0, body, error, not_finite, output, seconds, encoding)
            self._settle(answer, self.clock(), time.time())
        else:
            request.connection.answer(request, 200, body, b"", JSON if body.__class__ is bytes else BINARY)
            arrived = request.arrived
            now = self.clock()
            took, queue = now - arrived, began - arrived
            self.in_flight -= 1
            self._active = now
            self.answered = at = time.time()
            self.predictions.add(request.id, at, took, 200, output, request.trace, queue, 0.0, seconds, job.inputs)
            self.metrics.saw((200, took, queue, 0.0, seconds, job.samples, job.decoded - arrived, encoding))
        if seconds >= LONG:
            self.part()

    def _deliver(self) -> None:
        """Answer everything that was computed since the last turn."""
        now, at = self.clock(), time.time()
        for answer in self.compute.collect():
            if isinstance(answer, Step):
                self._stepped(answer)
            else:
                self._settle(answer, now, at)

    def _stepped(self, step: Step) -> None:
        """Send what one step of an answer made; at its end, count and log it."""
        job, request = step.job, step.job.request
        error, now = step.error, self.clock()
        if not (step.begun and step.more) and not self.waiting.leaves(job):
            return
        if step.begun:
            if job.began == 0.0:
                job.began = now
                request.begin(200, b"\r\ncache-control: no-cache")
            request.write(step.body)
            if step.more:
                return
            request.end()
        elif error is not None:
            self.refuse(request, error, not job.test)
        elif step.body:
            request.answer(200, step.body, b"", BINARY if isinstance(step.body, Parts) else JSON)
        self.in_flight -= 1
        self._active = now
        if job.test:
            return
        if request.gone:
            self.metrics.errors.add("client_gone")
            return
        code = 200 if error is None else error.status
        if error is not None and step.begun:
            self.metrics.errors.add(KINDS.get(code, "bad_request"))
        seconds = now - job.arrived
        queue = max(0.0, step.started - job.arrived)
        output = summary(step.output)
        self.predictions.add(request.id, time.time(), seconds, code, output, request.trace, queue, 0.0, step.seconds)
        self.metrics.saw((code, seconds, queue, 0.0, step.seconds, 1, job.decoded - job.arrived, 0.0))
        self.metrics.ran.append(Run(1, step.seconds, error is None))

    def _settle(self, answer: Answer, now: float, at: float) -> None:
        """Send an answer, count it, log it."""
        job = answer.job
        if not self.waiting.leaves(job):
            return
        self.in_flight -= 1
        self._active = now
        request: Request = job.request
        seconds, error = now - job.arrived, answer.error
        if job.test:
            if error is None:
                request.answer(200, answer.body, b"", JSON if isinstance(answer.body, bytes) else BINARY)
            else:
                self.refuse(request, error, counted=False)
            return
        if error is not None:
            code = error.status
            self.refuse(request, error)
        elif answer.body:
            code, body = 200, answer.body
            kind = JSON if body.__class__ is bytes else BINARY
            request.connection.answer(request, 200, body, b"", kind)
            if request.asked is not None and not answer.not_finite:
                for keeper in (self.answers, self.recorded):
                    if keeper.on:
                        keeper.add(now, request.asked, body, kind)
            if answer.not_finite:
                self.metrics.errors.add("nan_output", answer.not_finite)
        else:
            self.metrics.errors.add("client_gone")
            return
        self.answered = at
        ran, output = answer.seconds, answer.output
        wait = answer.wait if ran >= 0.0 else -1.0
        queue = max(0.0, answer.started - answer.wait - job.arrived)
        self.predictions.add(request.id, at, seconds, code, output, request.trace, queue, wait, ran, job.inputs)
        sides = (job.decoded - job.arrived, answer.encoding)
        self.metrics.saw((code, seconds, queue, wait, ran, job.samples, *sides))

    def part(self) -> None:
        """Move the loop back to the main thread: what comes from now on is computed beside it."""
        if self.compute.here:
            self.compute.here = False
            self._loop.stop()

    # --- what probes ask --------------------------------------------------------------------------------------------

    def tune(self, tuning: Tuning) -> None:
        """Batch by other rules from now on; what waits stays where it is."""
        if tuning != self.tuning:
            log.info("tuned: %s", tuning)
            self.tuning = tuning
            key = self._launch.variant.digest.encode()
            self._quarantine = Quarantine(tuning.refuse, key) if tuning.refuse else None
            self.compute.batch_by(batcher(tuning, self.compute.cost))

    def verdict(self) -> Readiness:
        compute, now, running = self.compute, self.clock(), None
        if (heartbeat := compute.running) is not None:
            since, samples = heartbeat
            running = Running(since, compute.cost.expect(samples, now), samples)
        failure = self._failure.message if self._failure else ""
        verdict = readiness(
            self._phase, running, compute.alive, compute.canned_error, now, failure, BACKGROUND.blocked(now)
        )
        if self._seen is None or verdict[:3] != self._seen[:3]:
            self._seen, self.since = verdict, time.time()
        return verdict

    def hung(self) -> bool:
        """Whether the run that goes on has passed its limit. Callable in any thread."""
        running = self.compute.running
        return running is not None and self.clock() - running[0] > STALE_GRACE and self.verdict().reason == "hung"

    # --- the end ----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin to drain: everything that arrives is still answered; ``done`` is set once idle or after ``drain``."""
        if self._phase == "stopping":
            return
        log.info("stopping: %d requests in flight", self.in_flight)
        self._phase = "stopping"
        self.part()
        self.closing = True
        began = self.clock()
        self._active = max(self._active, began)

        def look() -> None:
            now = self.clock()
            idle = not self.in_flight and now - self._active >= IDLE_BEFORE_EXIT
            if self.done.done():
                return
            if idle or now - began >= self.drain:
                if not idle:
                    log.warning("drain of %g s is over, %d requests cut", self.drain, self.in_flight)
                self.done.set_result(None)
            else:
                self._loop.call_later(0.05, look)

        look()

    def _quick(self) -> bool:
        model = self.model
        able = self._phase == "serving" and model is not None and model.alone and not self.faults.slow
        return able and self.compute.cost.quick()

    def tick(self) -> None:
        """Once a second: sum up the metrics, refuse requests that arrive too slowly, place the loop."""
        now = self.clock()
        self.metrics.fold()
        self.answers.tick(now)
        self.recorded.tick(now)
        if self.compute.here:
            asyncio._set_running_loop(None)  # as in ``host``: a timer comes before what was called soon
            self.compute.beat = now
            if now - self._active >= IDLE:
                self.compute.idle()
                if self.clock() - now >= LONG:
                    self.part()
        elif self._quick():
            self._loop.stop()  # the host lends it to the compute thread
        for connection in list(self.connections):
            connection.check(now)
        self._loop.call_later(1.0, self.tick)
