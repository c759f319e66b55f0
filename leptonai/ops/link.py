"""The control API as ops sees it, over HTTP. A control process that came back elsewhere is found again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leptonai.client import AsyncClient
from leptonai.errors import LeptonError
from leptonai.ops.control import World
from leptonai.types import Change, Event, Feedback, Incident, Key, Proposal, Revision


class Link:
    """A ``Control``. ``connect`` makes a client for the platform as it is found at that moment."""

    def __init__(self, connect: Callable[[], AsyncClient]) -> None:
        self._connect = connect
        self._made: AsyncClient | None = None
        self._gateway: tuple[str | None, int] = (None, 0)

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()
            self._made = None

    async def world(self) -> World:
        try:
            views = await self._client.services()
            gateway, left = self._gateway
            if left <= 0:  # where the gateway is changes only with control itself
                found = (await self._client.platform()).get("gateway") or {}
                gateway, left = _admin(found.get("admin")), 10
            self._gateway = (gateway, left - 1)
        except LeptonError as e:
            if e.code == "unreachable":
                await self.close()  # it may come back under another address
                self._gateway = (self._gateway[0], 0)
            raise
        return World(
            services=tuple(v.service for v in views),
            replicas=tuple(r for v in views for r in v.replicas),
            gateway=gateway,
        )

    async def revisions(self, key: Key) -> list[Revision]:
        return sorted(await self._client.revisions(key), key=lambda r: r.number)

    async def events(self, after: int) -> list[Event]:
        return await self._client.events(after, limit=1000)

    async def feedback(self, after: int) -> tuple[list[Feedback], int]:
        page = await self._client.feedback(after)
        return [item for _, item in page.items], page.next

    async def incidents(self) -> list[Incident]:
        return await self._client.incidents()

    async def put_incident(self, incident: Incident) -> Incident:
        return await self._client.put_incident(incident)

    async def propose(self, change: Change, why: str, by: str) -> Proposal:
        return await self._client.propose(change, why, by=by)

    async def proposal(self, id: str) -> Proposal | None:
        return next((p for p in await self._client.proposals() if p.id == id), None)

    async def verify(self, key: Key, number: int, detail: str) -> None:
        await self._client.verify(key, number, detail)

    async def record(self, kind: str, subject: str, detail: dict[str, Any]) -> None:
        await self._client.record(kind, subject, detail)

    @property
    def _client(self) -> AsyncClient:
        if self._made is None:
            self._made = self._connect()
        return self._made


def _admin(address: Any) -> str | None:
    """``unix:/path`` or ``host:port``, as the collector takes it; a bare path is a socket, ``http://`` is dropped."""
    if not address:
        return None
    text = str(address)
    if text.startswith("/"):
        return f"unix:{text}"
    return text.removeprefix("http://").rstrip("/")
