"""A real platform with a real model, and users who never stop asking; shared by the tests of the local platform."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from leptonai.platforms.local import LocalPlatform
from leptonai.platforms.local.probe import UnixClient
from leptonai.settings import Gateway, Local, Settings
from leptonai.store import Artifacts
from leptonai.types import Dials, Replica, Service, Spec, Variant, VariantDials

DOUBLE = """
class Double:
    def predict(self, x: float) -> float:
        return 2 * x
"""
SETTINGS = Settings(
    gateway=Gateway(port=0),
    local=Local(probe_interval=0.1, hung_after=1.0, backoff_first=0.1, stable_after=1.0, kill_after=0.5),
)


class World:
    def __init__(self, folder: Path, settings: Settings = SETTINGS) -> None:
        self.folder, self.settings = folder, settings
        self.home = folder / "home"
        self.artifacts = Artifacts(self.home / "artifacts")
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.platform = self.fresh()

    def fresh(self) -> LocalPlatform:
        return LocalPlatform(self.home, self.settings, self.artifacts, record=lambda *event: self.events.append(event))

    def kinds(self) -> Counter[str]:
        return Counter(kind for kind, _, _ in self.events)

    def variant(self, code: str = DOUBLE, **fields: Any) -> Variant:
        source = self.folder / "source"
        source.mkdir(exist_ok=True)
        (source / "model.py").write_text(code)
        return Variant(model=self.artifacts.put_tree(source), **fields)

    def service(self, n: int, variant: Variant | None = None, name: str = "double", **spec: Any) -> Service:
        made = Spec(name=name, variants=(variant or self.variant(idempotent=True),), **({"drain": 2.0} | spec))
        return Service(spec=made, dials=Dials(variants={"main": VariantDials(replicas=n)}), revision=1)

    async def until(self, true: Callable[[], Any], service: Service | None = None, seconds: float = 60.0) -> Any:
        """Apply the service, if there is one, until something is true; returns it."""
        end = time.monotonic() + seconds
        while True:
            if service is not None:
                await self.platform.apply(service)
            if found := true():
                return found
            assert time.monotonic() < end, f"not reached; replicas {self.platform.observe()}; events {self.events[-9:]}"
            await asyncio.sleep(0.02)

    async def settle(self, service: Service) -> list[Replica]:
        """Until the wished replicas, and no others, are ready and the gateway has taken them."""
        wanted = service.dials.variants["main"].replicas
        digest = service.spec.variants[0].digest

        def settled() -> bool:
            mine = [r for r in self.platform.observe() if r.service == service.key]
            return len(mine) == wanted and all((r.state, r.digest) == ("ready", digest) for r in mine)

        await self.until(settled, service)
        if wanted:
            async with asyncio.timeout(30):
                while (await self.ask(service.key))[0] in (404, 503):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        return [r for r in self.platform.observe() if r.service == service.key]

    async def ask(self, key: str, x: float = 21.0) -> tuple[int, Any]:
        """One request through the gateway: status and decoded body."""
        url = urlsplit(self.platform.url(key))
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        try:
            return await exchange(reader, writer, url.path, x)
        finally:
            await closed(writer)

    async def gateway_stat(self, name: str) -> int:
        client = UnixClient(self.platform.describe()["gateway"]["admin"])
        try:
            text = (await client.request("GET", f"/stats?filter=^{name}$", 5.0)).body.decode()
        finally:
            client.close()
        return int(text.rpartition(":")[2] or 0)

    @contextlib.asynccontextmanager
    async def users(self, key: str, count: int = 64) -> AsyncIterator[Users]:
        users = Users(self.platform.url(key), count)
        await users.start()
        try:
            yield users
        finally:
            await users.stop()


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, x: float) -> tuple[int, Any]:
    status, found, _ = await converse(reader, writer, path, x)
    return status, found


async def converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, x: float
) -> tuple[int, Any, bool]:
    """Status, decoded body, and whether the server wants to see another connection next."""
    body = json.dumps({"x": x}).encode()
    head = f"POST {path}/predict HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    writer.write(head.encode() + b"\r\n\r\n" + body)
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
    found = msgspec.json.decode(await reader.readexactly(length))
    return int(lines[0].split()[1]), found, b"connection: close" in lines


class Users:
    """Keep-alive connections that ask, check the answer, and ask again."""

    def __init__(self, url: str, count: int) -> None:
        self._url, self._count = urlsplit(url), count
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.answered = 0
        self.failures: list[str] = []

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._user(n)) for n in range(self._count)]
        await self.more(self._count)

    async def more(self, answers: int) -> None:
        """Returns after so many further good answers."""
        wanted = self.answered + answers
        async with asyncio.timeout(60):
            while self.answered < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._stopping = True
        async with asyncio.timeout(60):
            await asyncio.gather(*self._tasks)

    async def _user(self, number: int) -> None:
        while not self._stopping:
            try:
                reader, writer = await asyncio.open_connection(self._url.hostname, self._url.port)
            except OSError as e:
                self.failures.append(repr(e))
                await asyncio.sleep(0.02)
                continue
            try:
                closing = False
                while not self._stopping and not closing:
                    status, found, closing = await converse(reader, writer, self._url.path, number)
                    if (status, found) == (200, 2.0 * number):
                        self.answered += 1
                    else:
                        self.failures.append(f"{status} {found}")
            except (OSError, EOFError) as e:
                self.failures.append(repr(e))
            finally:
                await closed(writer)
