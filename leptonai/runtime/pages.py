"""The paths of a replica that are looked at rather than computed: probes, metadata, metrics; and which paths exist."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes

import orjson

from leptonai.runtime import about
from leptonai.runtime.doors import OPENAI, model_paths
from leptonai.runtime.faults import decode_fault
from leptonai.runtime.health import body
from leptonai.runtime.http import Request
from leptonai.runtime.orders import guarded, predictions
from leptonai.runtime.shed import decode_tuning

if TYPE_CHECKING:
    from leptonai.runtime.app import App

log = logging.getLogger(__name__)

TEXT = b"text/plain; version=0.0.4; charset=utf-8"


class Route(NamedTuple):
    methods: tuple[bytes, ...]
    handle: Callable[[Request], None]


class Pages:
    """Answers for an App, on its I/O loop."""

    def __init__(self, app: App) -> None:
        self._app = app

    def routes(self) -> dict[bytes, Route]:
        """Every path that is there whatever the model, with its handler.

        Orders are taken on a Unix socket, which nobody but the platform can open, or from who knows its secret: behind
        a port anybody who can call the model could break it, or read what others asked.
        """
        get = (b"GET", b"HEAD")
        post = (b"POST",)
        infer = Route(post, self._app.infer)
        routes = {
            "/-/ready": Route(get, self._ready),
            "/metrics": Route(get, self._metrics),
            "/predict": infer,
            "/v1/models": Route(get, self._openai_models),
            "/v2": Route(get, self._server),
            "/v2/": Route(get, self._server),
            "/v2/health/live": Route(get, lambda r: r.answer(200, b'{"live":true}')),
            "/v2/health/ready": Route(get, self._server_ready),
            "/v2/models/stats": Route(get, self._statistics),
            "/v2/repository/index": Route(post, self._index),
        }
        orders = {
            "/-/fault": Route(post, self._fault),
            "/-/batching": Route((b"PUT",), self._tune),
            "/-/answers": Route(post, self._answers),
            "/-/recorded": Route(post, self._recorded),
        }
        if "/" in self._app.socket:
            routes |= orders
        elif secret := self._app.secret:
            orders["/-/predictions"] = Route((b"GET",), self._predictions)
            routes |= {path: Route(r.methods, guarded(secret, r.handle)) for path, r in orders.items()}
        for path in model_paths(self._app.name, self._app.version):
            routes[path] = Route(get, self._metadata)
            routes[f"{path}/ready"] = Route(get, self._model_ready)
            routes[f"{path}/stats"] = Route(get, self._statistics)
            for action in ("infer", "generate", "generate_stream"):
                routes[f"{path}/{action}"] = infer
        return {path.encode(): route for path, route in routes.items()} | dict.fromkeys(OPENAI, infer)

    def _ready(self, request: Request) -> None:
        verdict = self._app.verdict()
        running = self._app.compute.running
        age = self._app.clock() - running[0] if running else 0.0
        answer = body(
            verdict, self._app.since, self._app.in_flight, round(age, 6), self._app.tuning, self._app.compute.cost
        )
        request.answer(200 if verdict.ready else 503, orjson.dumps(answer))

    def _answers(self, request: Request) -> None:
        answers = self._app.answers.take(request.body, self._app.clock())
        request.answer(200, answers, b"", b"application/msgpack")

    def _recorded(self, request: Request) -> None:
        recorded = self._app.recorded.take(request.body, self._app.clock())
        request.answer(200, recorded, b"", b"application/msgpack")

    def _predictions(self, request: Request) -> None:
        query = request.target.partition(b"?")[2].decode("latin-1")
        request.answer(200, predictions(self._app.predictions.folder, query), b"", b"application/octet-stream")

    def _server_ready(self, request: Request) -> None:
        ready = self._app.verdict().ready
        request.answer(200 if ready else 503, orjson.dumps({"ready": ready}))

    def _model_ready(self, request: Request) -> None:
        ready = self._app.verdict().ready
        request.answer(200 if ready else 503, orjson.dumps({"name": self._app.name, "ready": ready}))

    def _server(self, request: Request) -> None:
        extensions = about.EXTENSIONS if self._app.doors is None else self._app.doors.extensions
        request.answer(200, orjson.dumps(about.server(extensions)))

    def _openai_models(self, request: Request) -> None:
        self._app.ready_model()
        assert self._app.doors is not None
        request.answer(200, orjson.dumps(self._app.doors.models(int(self._app.since))))

    def _metadata(self, request: Request) -> None:
        request.answer(200, orjson.dumps(about.metadata(self._app.ready_model(), self._app.name, self._app.version)))

    def _statistics(self, request: Request) -> None:
        app = self._app
        request.answer(200, orjson.dumps(about.statistics(app.name, app.version, app.metrics, app.answered)))

    def _index(self, request: Request) -> None:
        app = self._app
        listed = about.index(app.name, app.version, app.verdict(), about.only_ready(request.body))
        request.answer(200, orjson.dumps(listed))

    def repository(self, request: Request) -> None:
        path = unquote_to_bytes(request.target.partition(b"?")[0]).decode("utf-8", "replace")
        model, _, action = path.removeprefix("/v2/repository/models/").rpartition("/")
        request.answer(200, orjson.dumps((about.load if action == "load" else about.unload)(model, self._app.name)))

    def _metrics(self, request: Request) -> None:
        now, compute = self._app.clock(), self._app.compute
        cost = compute.cost.learn()
        gauges = {
            "leptonai_in_flight": float(self._app.in_flight),
            "leptonai_queued": float(max(0, sum(self._app.waiting.submitted) - sum(compute.taken))),
            "leptonai_heartbeat_age_seconds": max(0.0, now - compute.beat),
            "leptonai_batch_size_limit": float(compute.batcher.size),
            "leptonai_batch_cost_seconds_per_sample": cost.per_sample,
            "leptonai_batch_cost_fixed_seconds": cost.fixed,
        }
        request.answer(200, self._app.metrics.text(gauges, self._app.predictions.dropped), b"", TEXT)

    def _tune(self, request: Request) -> None:
        self._app.tune(decode_tuning(request.body))
        request.answer(200, request.body)

    def _fault(self, request: Request) -> None:
        fault = decode_fault(request.body)
        if fault.kind == "stop":
            self._app.halt(fault.heal_after if fault.amount > 0 else 0.0)
        else:
            self._app.faults.inject(fault)
        self._app.part()
        log.warning("fault %s %g for %g s", fault.kind, fault.amount, fault.heal_after)
        request.answer(200, orjson.dumps({"kind": fault.kind, "heal_after": fault.heal_after}))
