"""All clusters of one gateway, each on a socket of its own, and the socket on which the platform asks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from pathlib import Path
from urllib.parse import parse_qs

import orjson

from leptonai.edge import endpoints
from leptonai.edge.cluster import Cluster
from leptonai.edge.collect import collect_for_ever
from leptonai.edge.http import Connection, Handler, Request
from leptonai.edge.watch import Watch
from leptonai.errors import LeptonError, NotFound, SpecError

log = logging.getLogger(__name__)

BACKLOG = 1024
LONG_POLL = 10.0  # seconds that a question for changes waits
TEXT = b"text/plain; version=0.0.4; charset=utf-8"


class App:
    """``endpoints``: the folder of Envoy's endpoint files. ``own``: the path of the socket for the platform."""

    def __init__(self, endpoints: Path, own: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._own = own
        self._clusters: dict[str, tuple[Cluster, str]] = {}  # by file name; with the path it listens on
        self._servers: dict[str, asyncio.Task[asyncio.AbstractServer]] = {}  # by path
        self._version = time.time_ns() // 1000  # of what is held; another after each start, too
        self._asking: list[tuple[Request, asyncio.TimerHandle]] = []
        self._watch = Watch(endpoints, self._changed)

    def start(self) -> None:
        """Every cluster with a file is listened for, and so is the platform."""
        self._own.parent.joinpath("edge").mkdir(mode=0o700, exist_ok=True)
        self._watch.begin()
        self._listen(str(self._own), self)

    async def drained(self) -> None:
        """Return once nothing is held any more. Files are not followed; sockets may have been taken over."""
        self._watch.close()
        while any(cluster.busy for cluster, _ in self._clusters.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def clusters(self) -> list[Cluster]:
        return [cluster for cluster, _ in self._clusters.values()]

    # --- clusters -----------------------------------------------------------------------------------------------------

    def _changed(self, name: str) -> None:
        if name.startswith(".") or not name.endswith(".json"):
            return
        try:
            found = endpoints.read((self._watch.folder / name).read_bytes())
        except FileNotFoundError:
            found = None
        except (OSError, SpecError) as e:
            log.error("%s: %s", name, e)
            return
        known = self._clusters.get(name)
        if known is not None and (found is None or found.listen != known[1]):
            cluster, path = self._clusters.pop(name)
            self._close(path)
            cluster.close()
            known = None
        if found is None:
            return
        if known is not None:
            known[0].update(found)
        else:
            cluster = Cluster(found, self._told)
            self._clusters[name] = cluster, found.listen
            self._listen(found.listen, cluster)

    def _listen(self, path: str, handler: Handler) -> None:
        """Bound beside and renamed into place: an edge before us never leaves a moment in which nobody listens."""
        fresh = f"{path}.new"
        Path(fresh).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(fresh)
        listener.listen(BACKLOG)
        Path(fresh).replace(path)
        clock = self._loop.time
        serving = self._loop.create_unix_server(lambda: Connection(handler, clock), sock=listener, backlog=BACKLOG)
        self._servers[path] = self._loop.create_task(serving)

    def _close(self, path: str) -> None:
        self._servers.pop(path).add_done_callback(lambda task: task.result().close())
        Path(path).unlink(missing_ok=True)

    # --- what the platform asks ---------------------------------------------------------------------------------------

    def reserve(self, count: int, size: int) -> LeptonError | None:
        return None

    def release(self, count: int, size: int) -> None: ...

    def left(self, request: Request) -> None:
        self._asking = [(r, t) for r, t in self._asking if r is not request]

    def handle(self, request: Request) -> None:
        path, _, query = request.target.decode("latin-1").partition("?")
        if path == "/-/held":
            self._held(request, parse_qs(query).get("after", [""])[0])
        elif path == "/held":
            request.answer(200, orjson.dumps(self._waiting()), [])
        elif path == "/-/ready":
            request.answer(200, orjson.dumps({"state": "ready", "clusters": len(self._clusters)}), [])
        elif path == "/metrics":
            request.answer(200, self._metrics(), [], TEXT)
        else:
            request.fail(NotFound(f"there is nothing at {path[:80]!r}", hint="/-/held, /-/ready, /metrics"))

    def _held(self, request: Request, after: str) -> None:
        """What is held; when it is as it was ``after`` that version, the answer waits for a change."""
        if after != str(self._version):
            self._tell(request)
        else:
            self._asking.append((request, self._loop.call_later(LONG_POLL, self._tell, request)))

    def _waiting(self) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for cluster, _ in self._clusters.values():
            if cluster.held:
                one = found.setdefault(cluster.standby.service, {"held": 0, "oldest": 0.0})
                one["held"] += cluster.held
                one["oldest"] = max(one["oldest"], cluster.oldest)
        return found

    def _tell(self, request: Request) -> None:
        self.left(request)
        held = [
            {"service": c.standby.service, "variant": c.standby.variant, "count": c.held}
            for c, _ in self._clusters.values()
            if c.held
        ]
        request.answer(200, orjson.dumps({"version": self._version, "held": held}), [])

    def _told(self) -> None:
        self._version += 1
        for request, timer in list(self._asking):
            timer.cancel()
            self._tell(request)

    def _metrics(self) -> bytes:
        held = ["# HELP leptonai_edge_held Requests that wait for a replica.", "# TYPE leptonai_edge_held gauge"]
        kept = ["# HELP leptonai_edge_answers Answers kept for their repeat.", "# TYPE leptonai_edge_answers gauge"]
        told = ["# HELP leptonai_edge_requests_total Requests by what became of them."]
        told += ["# TYPE leptonai_edge_requests_total counter"]
        for cluster, _ in self._clusters.values():
            labels = f'service="{cluster.standby.service}",variant="{cluster.standby.variant}"'
            held.append(f"leptonai_edge_held{{{labels}}} {cluster.held}")
            kept.append(f"leptonai_edge_answers{{{labels}}} {len(cluster.answers)}")
            for outcome, count in sorted(cluster.counts.items()):
                told.append(f'leptonai_edge_requests_total{{{labels},outcome="{outcome}"}} {count}')
        return ("\n".join([*held, *kept, *told]) + "\n").encode()


async def serve(folder: Path, own: Path, ending: asyncio.Event) -> None:
    """Serve until ``ending``, then until nothing is held."""
    app = App(folder, own)
    app.start()
    collecting = asyncio.create_task(collect_for_ever(app.clusters))
    log.info("the edge listens beside %s", own)
    await ending.wait()
    collecting.cancel()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60.0):
            await app.drained()
