"""The ops process: watches through the API with a token of its own, proposes through the one door."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from typing import Any

import uvloop

from leptonai import settings as setting
from leptonai.client import AsyncClient
from leptonai.client.home import Home, read_token
from leptonai.client.wire import Desk, IssueVerdict
from leptonai.daemon.seats import Seats
from leptonai.daemon.spawn import open_log
from leptonai.errors import LeptonError, NotFound
from leptonai.ops.control import World
from leptonai.ops.run import run as watch_over
from leptonai.platforms.local.rundir import make_runtime_folder
from leptonai.types import Change, Event, Feedback, Incident, Issue, Key, Proposal, Review, Revision

log = logging.getLogger("leptonai.ops")
GATEWAY_EVERY = 10  # looks at the world between two questions where gateways are: they seldom move
RETRY = 0.5  # seconds between looks for a control process
STANDBY = 2.0  # seconds between two questions whether another copy of the platform leads


class Api:
    """What ops sees and may do (``ops.control.Control``), over the control API."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._gateways: tuple[str, ...] = ()
        self._trouble = ""
        self._looks = 0

    async def world(self) -> World:
        views = await self._client.services()
        if self._looks % GATEWAY_EVERY == 0:
            gateway = (await self._client.platform()).get("gateway") or {}
            admin, self._trouble = str(gateway.get("admin") or ""), str(gateway.get("trouble") or "")
            here = (f"unix:{admin}" if admin.startswith("/") else admin,) if admin else ()
            self._gateways = tuple(gateway.get("pages") or here)
        self._looks += 1
        return World(
            services=tuple(v.service for v in views),
            replicas=tuple(r for v in views for r in v.replicas),
            gateways=self._gateways,
            trouble=self._trouble,
            room={v.key: v.room for v in views if v.room},
            theirs=frozenset(v.key for v in views if v.scaled_by),
            frozen=(await self._client.freeze()).said,
        )

    async def revisions(self, key: Key) -> list[Revision]:
        return await self._client.revisions(key)

    async def events(self, after: int) -> list[Event]:
        return await self._client.events(after or None, limit=1000)

    async def feedback(self, after: int) -> tuple[list[Feedback], int]:
        page = await self._client.feedback(after)
        return [item for _, item in page.items], page.next

    async def reviews(self, after: int) -> tuple[list[tuple[int, Review]], int]:
        page = await self._client.reviews(after)
        return page.items, page.next

    async def incident(self, id: int) -> Incident | None:
        try:
            return await self._client.incident(id)
        except NotFound:
            return None

    async def issues(self, state: str) -> list[Issue]:
        return await self._client.issues(state)

    async def judge_issue(self, id: int, verdict: IssueVerdict) -> None:
        await self._client.judge_issue(id, verdict)

    async def incidents(self) -> list[Incident]:
        return await self._client.incidents()

    async def put_incident(self, incident: Incident) -> Incident:
        return await self._client.put_incident(incident)

    async def propose(
        self, change: Change, why: str, by: str, ask: str = "", expires_in: float | None = None
    ) -> Proposal:
        return await self._client.propose(change, why, expires_in=expires_in, by=by, ask=ask)

    async def proposal(self, id: str) -> Proposal | None:
        try:
            return await self._client.proposal(id)
        except NotFound:
            return None

    async def verify(self, key: Key, number: int, detail: str) -> None:
        await self._client.verify(key, number, detail)

    async def desk(self) -> Desk:
        return await self._client.desk()

    async def end_silence(self, id: int) -> None:
        with contextlib.suppress(NotFound):
            await self._client.end_silence(id)

    async def record(self, kind: str, subject: str, detail: dict[str, Any]) -> None:
        await self._client.record(kind, subject, detail)


def run(home: Home) -> int:
    """Watch until SIGTERM; at once 0 when another ops sits on this home."""
    open_log(home, "ops")
    seats = Seats(home)
    if not seats.take("ops"):
        log.info("ops of this home runs already, pid %s", seats.holder("ops"))
        return 0
    try:
        uvloop.run(main(home))
    except LeptonError as e:
        log.error("ops ends: %s", e.body())
        return e.exit_code
    return 0


async def main(home: Home) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    stop = asyncio.create_task(told.wait())
    watching = asyncio.create_task(watch_when_found(home))
    await asyncio.wait([stop, watching], return_when=asyncio.FIRST_COMPLETED)
    if not watching.done():
        watching.cancel()
    stop.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


async def watch_when_found(home: Home) -> None:
    settings = setting.load(home.settings)
    while True:
        try:
            client = AsyncClient(token=read_token(home.ops_token), home=home.path, local=True)
            break
        except LeptonError:  # control has not written its address or our token yet
            await asyncio.sleep(RETRY)
    socket = make_runtime_folder(home.path) / "ops.sock"
    async with client:
        while True:
            await standby(client, False)
            watching = asyncio.create_task(watch_over(home.path, settings, Api(client), time.time, socket))
            led = asyncio.create_task(standby(client, True))
            try:
                await asyncio.wait([watching, led], return_when=asyncio.FIRST_COMPLETED)
                if watching.done():
                    return watching.result()
                log.warning("another copy of the platform leads: ops stands by")
            finally:
                for task in (watching, led):
                    task.cancel()
                await asyncio.gather(watching, led, return_exceptions=True)


async def standby(client: AsyncClient, wanted: bool) -> None:
    """Returns when another copy of the platform leads, or, not ``wanted``, when none does."""
    while True:
        with contextlib.suppress(LeptonError):  # control is away: as it was
            leader = (await client.platform()).get("leader") or {}
            if bool(leader.get("standby")) == wanted:
                return
        await asyncio.sleep(STANDBY)
