"""What a replica answers: routes, probes and faults on the I/O loop, inference through the compute thread."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import orjson

from leptonai.errors import CapacityError, LeptonError, NotFound, SpecError
from leptonai.runtime import golden, loaders
from leptonai.runtime.batching import Eager, Job
from leptonai.runtime.compute import IDLE, Answer, Compute, Loaded
from leptonai.runtime.faults import Faults, decode_fault
from leptonai.runtime.health import LONG, STALE_GRACE, Phase, Readiness, Running, body, readiness
from leptonai.runtime.http import JSON, Connection, Request
from leptonai.runtime.infer import decode_infer
from leptonai.runtime.metrics import Metrics
from leptonai.runtime.model import Model, TensorModel
from leptonai.runtime.predictions import PredictionLog
from leptonai.types import Launch, parse_key

log = logging.getLogger(__name__)

MAX_BODY = 64 << 20  # bytes of one request; the environment variable LEPTONAI_MAX_BODY overrides it
READ_TIMEOUT = 30.0  # seconds a request may take to arrive; the environment variable LEPTONAI_READ_TIMEOUT overrides it
IDLE_BEFORE_EXIT = 0.5  # seconds without a request until a replica told to stop does stop
TEXT = b"text/plain; version=0.0.4; charset=utf-8"
KINDS = {429: "shed", 500: "model_failed", 503: "starting", 504: "timeout"}


class Route(NamedTuple):
    methods: tuple[bytes, ...]
    handle: Callable[[Request], None]


class App:
    """The handler of all connections. Everything here runs on the I/O loop."""

    def __init__(
        self,
        launch: Launch,
        loop: asyncio.AbstractEventLoop,
        max_body: float = MAX_BODY,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        self._launch = launch
        self._loop = loop
        self.name = parse_key(launch.service)[1]
        self.version = str(launch.revision)
        self.max_body = int(max_body)
        self.read_timeout = read_timeout
        self.closing = False
        self.connections: set[Connection] = set()
        self.clock = time.monotonic
        self.metrics = Metrics()
        self.predictions = PredictionLog(
            Path(launch.run_dir) / "predictions", launch.prediction_log_bytes, launch.variant.digest
        )
        self.faults = Faults()
        self.compute = Compute(
            self._load,
            lambda loaded: self._soon(self._on_loaded, loaded),
            lambda error: self._soon(self._on_failed, error),
            self._on_answers,
            Eager(launch.variant.batching),
            self.faults,
            self.name,
            self.version,
        )
        self.done: asyncio.Future[LeptonError | None] = loop.create_future()
        self._max_queue = launch.variant.batching.max_queue  # samples
        self._timeout = launch.timeout
        self.drain = launch.drain
        self.socket = launch.socket
        self._model: Model | None = None
        self._phase: Phase = "starting"
        self._failure: LeptonError | None = None
        self._seen: Readiness | None = None
        self._since = time.time()
        self.in_flight = 0
        self._submitted = 0  # samples handed to the compute thread since the start
        self._outgoing: list[Job] = []
        self._active = 0.0  # when an inference was last received or answered
        self._id_prefix = os.urandom(6).hex().encode()
        self._id_number = 0
        self._routes = self._make_routes()
        self._decoders: dict[bytes, Callable[[bytes], Job]] = {}  # of inference paths, once there is a model

    def _on_answers(self) -> None:
        self._soon(self._deliver)

    def _soon(self, call: Callable[..., None], *values: Any) -> None:
        """Called in the compute thread: run on the loop."""
        try:
            self._loop.call_soon_threadsafe(call, *values)
        except RuntimeError:  # the loop has closed: nobody is left to be told
            pass

    # --- loading, in the compute thread -----------------------------------------------------------------------------

    def _load(self) -> Loaded:
        variant = self._launch.variant
        predictor, file = loaders.load(self._launch.artifact, variant)
        from leptonai.runtime.loaders.python import PythonPredictor

        model: Model
        if isinstance(predictor, PythonPredictor):
            from leptonai.runtime.objects import ObjectModel

            model = ObjectModel(predictor)
        else:
            model = TensorModel(predictor)
        examples = golden.read(self._launch.artifact, file)
        golden.check(model, examples)
        is_code = file.endswith(".py")
        idempotent = variant.idempotent if variant.idempotent is not None else not is_code
        canned = None
        if examples:
            job = model.example_job(examples[0].inputs)

            def canned() -> None:
                model.run([job])

        gc.collect()
        gc.freeze()  # libraries and the model stay: collections look at requests only, which keeps the tail short
        return Loaded(model, canned, idempotent)

    def _on_loaded(self, loaded: Loaded) -> None:
        model = self._model = loaded.model
        self._decoders[b"/predict"] = model.job
        for path in self._model_paths():
            self._decoders[f"{path}/infer".encode()] = lambda body: model.infer_job(decode_infer(body))
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

    def handle(self, request: Request) -> None:
        decode = self._decoders.get(request.target)
        try:
            if decode is not None and request.method == b"POST":
                self._submit(request, decode(request.body))
                return
            route = self._routes.get(request.target)
            if route is None:
                route = self._find(request.target)
            if request.method not in route.methods:
                allowed = b", ".join(route.methods)
                error = SpecError(
                    f"{request.method.decode()} is not allowed here", hint=f"use {allowed.decode()}", status=405
                )
                request.answer(405, orjson.dumps(error.body()), b"\r\nallow: " + allowed)
                return
            route.handle(request)
        except LeptonError as e:
            self.refuse(request, e)
        except Exception as e:
            log.exception("a request fails inside the replica")
            self.refuse(request, LeptonError(f"internal error: {loaders.one_line(e)}", hint="see the replica's log"))

    def refuse(self, request: Request, error: LeptonError) -> None:
        self.metrics.requests.add(str(error.status))
        self.metrics.errors.add(KINDS.get(error.status, "bad_request"))
        request.fail(error)

    def _make_routes(self) -> dict[bytes, Route]:
        get = (b"GET", b"HEAD")
        post = (b"POST",)
        routes = {
            "/-/ready": Route(get, self._ready),
            "/-/fault": Route(post, self._fault),
            "/metrics": Route(get, self._metrics),
            "/predict": Route(post, self._infer),
            "/v2": Route(get, self._server),
            "/v2/": Route(get, self._server),
            "/v2/health/live": Route(get, lambda r: r.answer(200, b'{"live":true}')),
            "/v2/health/ready": Route(get, self._server_ready),
        }
        for path in self._model_paths():
            routes[path] = Route(get, self._metadata)
            routes[f"{path}/ready"] = Route(get, self._model_ready)
            routes[f"{path}/infer"] = Route(post, self._infer)
        return {path.encode(): route for path, route in routes.items()}

    def _model_paths(self) -> tuple[str, str]:
        path = f"/v2/models/{self.name}"
        return path, f"{path}/versions/{self.version}"

    def _find(self, target: bytes) -> Route:
        """The route of a target that has a query or percent-encoding. NotFound says what is there."""
        path = unquote_to_bytes(target.partition(b"?")[0])
        route = self._routes.get(path)
        if route is not None:
            return route
        parts = path.decode("utf-8", "replace").split("/")
        if parts[1:3] == ["v2", "models"] and len(parts) > 3:
            if parts[3] != self.name:
                raise NotFound(f"unknown model {parts[3][:80]!r}", hint=f"this replica serves {self.name!r}")
            if parts[4:5] == ["versions"] and parts[5:6] != [self.version]:
                raise NotFound(
                    f"model {self.name!r} has no version {'/'.join(parts[5:6])[:80]!r}",
                    hint=f"this replica serves version {self.version!r}",
                )
        raise NotFound(f"there is nothing at {path.decode('utf-8', 'replace')[:200]!r}", hint="try /predict or /v2")

    def _infer(self, request: Request) -> None:
        """An inference that comes before there is a model, or under a path that is spelled in an unusual way."""
        model = self._ready_model()
        path = unquote_to_bytes(request.target.partition(b"?")[0])
        self._submit(request, self._decoders.get(path, model.job)(request.body))

    def _ready_model(self) -> Model:
        if self._model is None:
            raise LeptonError(
                "the model is being loaded",
                hint="try again soon",
                code="starting",
                status=503,
                retry=True,
                retry_after=1,
            )
        return self._model

    def _submit(self, request: Request, job: Job) -> None:
        if self.faults.failing and self.faults.fails():
            raise LeptonError("an injected fault", hint="a drill is running", code="injected", retry=True)
        limit, waiting = self._max_queue, self._submitted - self.compute.taken
        if waiting and waiting + job.samples > limit:
            raise CapacityError(
                f"{waiting} samples wait, the limit is {limit}",
                hint="send slower, or add replicas",
                code="shed",
                status=429,
                retry_after=1,
            )
        job.request = request
        job.arrived = request.arrived
        job.deadline = request.arrived + (job.allowed or self._timeout)
        self._submitted += job.samples
        self.in_flight += 1
        if self.compute.here:
            self._compute_here(job)
            return
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(job)

    def _flush(self) -> None:
        """Hand everything that arrived in this turn of the loop to the compute thread at once."""
        jobs, self._outgoing = self._outgoing, []
        if self.compute.here:  # the loop has moved since they arrived
            for job in jobs:
                self._compute_here(job)
        else:
            self.compute.submit(jobs)

    def _compute_here(self, job: Job) -> None:
        answer = self.compute.one(job, self.clock())
        self._settle(answer, self.clock(), time.time())
        if answer.seconds >= LONG:
            self._part()

    def _deliver(self) -> None:
        """Answer everything that was computed since the last turn."""
        now, at = self.clock(), time.time()
        for answer in self.compute.collect():
            self._settle(answer, now, at)

    def _settle(self, answer: Answer, now: float, at: float) -> None:
        """Send an answer, count it, log it."""
        self.in_flight -= 1
        self._active = now
        job = answer.job
        request: Request = job.request
        seconds = now - job.arrived
        error = answer.error
        if error is not None:
            code = error.status
            self.refuse(request, error)
        elif answer.body:
            code = 200
            request.connection.answer(request, 200, answer.body, b"", JSON)
            if answer.not_finite:
                self.metrics.errors.add("nan_output", answer.not_finite)
        else:
            self.metrics.errors.add("client_gone")
            return
        self.predictions.add(request.id, at, seconds, code, answer.output)
        wait = answer.wait if answer.seconds >= 0.0 else -1.0
        queue = answer.started - answer.wait - job.arrived
        self.metrics.saw((code, seconds, queue if queue > 0.0 else 0.0, wait, answer.seconds, answer.batch))

    def _part(self) -> None:
        """Move the loop back to the main thread: what comes from now on is computed beside it."""
        if self.compute.here:
            self.compute.here = False
            self._loop.stop()

    # --- what probes ask --------------------------------------------------------------------------------------------

    def verdict(self) -> Readiness:
        compute, now, running = self.compute, self.clock(), None
        if (heartbeat := compute.running) is not None:
            since, samples = heartbeat
            running = Running(since, compute.cost.expect(samples, now), samples)
        failure = self._failure.message if self._failure else ""
        verdict = readiness(self._phase, running, compute.alive, compute.canned_error, now, failure)
        if self._seen is None or verdict[:3] != self._seen[:3]:
            self._seen, self._since = verdict, time.time()
        return verdict

    def hung(self) -> bool:
        """Whether the run that goes on has passed its limit. Callable in any thread."""
        running = self.compute.running
        return running is not None and self.clock() - running[0] > STALE_GRACE and self.verdict().reason == "hung"

    def _ready(self, request: Request) -> None:
        verdict = self.verdict()
        running = self.compute.running
        age = self.clock() - running[0] if running else 0.0
        answer = body(verdict, self._since, self.in_flight, round(age, 6))
        request.answer(200 if verdict.ready else 503, orjson.dumps(answer))

    def _server_ready(self, request: Request) -> None:
        ready = self.verdict().ready
        request.answer(200 if ready else 503, orjson.dumps({"ready": ready}))

    def _model_ready(self, request: Request) -> None:
        ready = self.verdict().ready
        request.answer(200 if ready else 503, orjson.dumps({"name": self.name, "ready": ready}))

    def _server(self, request: Request) -> None:
        from leptonai import __version__

        request.answer(200, orjson.dumps({"name": "leptonai", "version": __version__, "extensions": []}))

    def _metadata(self, request: Request) -> None:
        model = self._ready_model()
        answer = {
            "name": self.name,
            "versions": [self.version],
            "platform": model.platform,
            "inputs": model.inputs,
            "outputs": model.outputs,
        }
        request.answer(200, orjson.dumps(answer))

    def _metrics(self, request: Request) -> None:
        now = self.clock()
        gauges = {
            "leptonai_in_flight": float(self.in_flight),
            "leptonai_queued": float(self._submitted - self.compute.taken),
            "leptonai_heartbeat_age_seconds": max(0.0, now - self.compute.beat),
        }
        request.answer(200, self.metrics.text(gauges, self.predictions.dropped), b"", TEXT)

    def _fault(self, request: Request) -> None:
        fault = decode_fault(request.body)
        self.faults.inject(fault)
        self._part()
        log.warning("fault %s %g for %g s", fault.kind, fault.amount, fault.heal_after)
        request.answer(200, orjson.dumps({"kind": fault.kind, "heal_after": fault.heal_after}))

    # --- the end ----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin to drain: everything that arrives is still answered; ``done`` is set once idle or after ``drain``."""
        if self._phase == "stopping":
            return
        log.info("stopping: %d requests in flight", self.in_flight)
        self._phase = "stopping"
        self._part()
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
        model = self._model
        able = self._phase == "serving" and model is not None and model.alone and not self.faults.slow
        return able and self.compute.cost.quick()

    def tick(self) -> None:
        """Once a second: sum up the metrics, refuse requests that arrive too slowly, place the loop."""
        now = self.clock()
        self.metrics.fold()
        if self.compute.here:
            self.compute.beat = now
            if now - self._active >= IDLE:
                self.compute.idle()
                if self.clock() - now >= LONG:
                    self._part()
        elif self._quick():
            self._loop.stop()  # the host lends it to the compute thread
        for connection in list(self.connections):
            connection.check(now)
        self._loop.call_later(1.0, self.tick)
