"""An API server that lists and watches what it is given, and pods that are sockets of this machine: no cluster."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import secrets
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Json = dict[str, Any]


def loopback() -> str:
    """An address of this machine that nobody else uses: ports of pods are fixed, addresses are free."""
    return "127." + ".".join(str(1 + secrets.randbelow(253)) for _ in range(3))


class Api:
    """Speaks what lists and watches need of a cluster's API. ``put`` and ``drop`` are seen by whoever watches."""

    def __init__(self) -> None:
        self.objects: defaultdict[str, dict[str, Json]] = defaultdict(dict)
        self._versions = itertools.count(1)
        self._log: list[tuple[int, str, Json]] = []
        self._server: asyncio.Server | None = None
        self._watching: dict[asyncio.Queue[Json], str] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As one that is away: every connection breaks."""
        assert self._server is not None
        self._server.close()
        for queue in self._watching:
            queue.put_nowait({})
        for writer in list(self._writers):
            writer.transport.abort()
        while self._writers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def kubeconfig(self, path: Path) -> Path:
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "models"}}
        config = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "users": [{"name": "u", "user": {}}]}
        path.write_text(yaml.safe_dump(config | {"contexts": [context], "current-context": "c"}))
        return path

    def put(self, kind: str, obj: Json) -> None:
        """``kind``: as in paths, ``pods``."""
        name = obj["metadata"]["name"]
        event = "MODIFIED" if name in self.objects[kind] else "ADDED"
        self.objects[kind][name] = obj
        self._tell(kind, event, obj)

    def drop(self, kind: str, name: str) -> None:
        self._tell(kind, "DELETED", self.objects[kind].pop(name))

    def _tell(self, kind: str, event: str, obj: Json) -> None:
        version = next(self._versions)
        obj["metadata"] |= {"resourceVersion": str(version), "uid": obj["metadata"]["name"]}
        obj = copy.deepcopy(obj)
        self._log.append((version, kind, {"type": event, "object": obj}))
        for queue, wanted in self._watching.items():
            if wanted == kind:
                queue.put_nowait({"type": event, "object": obj})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                await self._one(reader, writer)
        except (OSError, EOFError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        target = urlsplit(head.split(" ")[1])
        parts, asked = target.path.strip("/").split("/"), parse_qs(target.query)
        kind, names = parts[4], parts[5:]
        wanted = [s.partition("=") for s in asked.get("labelSelector", [""])[0].split(",") if s]
        if names:
            found = self.objects[kind].get(names[0])
            self._answer(writer, 200 if found else 404, found or {"kind": "Status", "message": "not found"})
        elif "watch" in asked:
            await self._watch(writer, kind, wanted, int(asked["resourceVersion"][0]))
        else:
            items = [o for o in self.objects[kind].values() if _chosen(o, wanted)]
            version = str(next(self._versions))
            self._answer(writer, 200, {"metadata": {"resourceVersion": version}, "items": items})

    @staticmethod
    def _answer(writer: asyncio.StreamWriter, status: int, body: Json) -> None:
        content = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)

    async def _watch(
        self, writer: asyncio.StreamWriter, kind: str, wanted: list[tuple[str, str, str]], at: int
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        queue: asyncio.Queue[Json] = asyncio.Queue()
        for version, of, event in self._log:
            if of == kind and version > at:
                queue.put_nowait(event)
        self._watching[queue] = kind
        try:
            while event := await queue.get():
                if _chosen(event["object"], wanted):
                    line = json.dumps(event).encode() + b"\n"
                    writer.write(b"%x\r\n%b\r\n" % (len(line), line))
                    await writer.drain()
        finally:
            self._watching.pop(queue, None)
        raise EOFError


def _chosen(obj: Json, wanted: list[tuple[str, str, str]]) -> bool:
    labels = obj["metadata"].get("labels") or {}
    return all(name in labels and (not equals or labels[name] == value) for name, equals, value in wanted)


class Backend:
    """A replica that answers ``/predict`` with its name, after ``seconds``, and says that it is ready."""

    def __init__(self, name: str) -> None:
        self.name, self.address, self.seconds = name, loopback(), 0.0
        self.answers, self.asked, self.probed = True, 0, 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, port: int) -> None:
        self._server = await asyncio.start_server(self._serve, self.address, port)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        while self._writers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = next((int(x.split(":")[1]) for x in head.split("\r\n") if x.startswith("content-length:")), 0)
                await reader.readexactly(length)
                if "/-/ready" in head:
                    self.probed += 1
                else:
                    self.asked += 1
                    await asyncio.sleep(self.seconds)
                status = "200 OK" if self.answers or "/-/ready" in head else "500 no"
                body = self.name.encode()
                writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        except (OSError, EOFError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
