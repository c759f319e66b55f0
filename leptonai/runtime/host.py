"""Which thread runs the I/O loop: the main thread, or the compute thread while its runs are too short to notice.

Handing a request to the other thread and back costs more CPU than a short run itself. So once a model has proven quick
(``health.quick``) the loop moves into the compute thread and jobs run where they are read; the model still sees one
thread only. The first run that takes long moves the loop back to the main thread. Meanwhile the main thread watches:
when a run passes its limit, so that the loop is silent, it answers new connections itself, and it ends a drain in time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from leptonai.errors import LeptonError
from leptonai.runtime.app import READ_TIMEOUT, App
from leptonai.runtime.http import Connection, Request

log = logging.getLogger(__name__)

LOOK = 0.1  # seconds between two looks of the main thread at a loop that it has lent


def run(loop: asyncio.AbstractEventLoop, app: App, listener: socket.socket, task: asyncio.Task[Any]) -> None:
    """Run the loop, in whichever thread, until the task is done. Called in the main thread."""
    asked: list[float] = []  # when we were told to stop

    def told(*_: object) -> None:
        asked.append(app.clock())
        loop.call_soon_threadsafe(app.stop)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    task.add_done_callback(lambda _: loop.stop())
    while not task.done():
        loop.run_forever()
        if not task.done():
            _lend(loop, app, listener, asked)


def _lend(loop: asyncio.AbstractEventLoop, app: App, listener: socket.socket, asked: list[float]) -> None:
    """Have the compute thread run the loop, until it is stopped there."""
    back = threading.Event()
    log.info("runs are short: the loop moves to the compute thread")
    app.compute.host(lambda: _visit(loop, back))

    def done() -> bool:
        return back.is_set() or _over(app, asked)

    while not back.wait(LOOK):
        if app.hung():
            log.error("the model hangs while it holds the loop: the main thread answers in its place")
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_stand_in(app, listener, done))
        if _over(app, asked):
            log.warning("drain of %g s is over, %d requests cut", app.drain, app.in_flight)
            app.predictions.close()
            Path(app.socket).unlink(missing_ok=True)
            os._exit(0)
    log.info("the loop moves back to the main thread")


def _visit(loop: asyncio.AbstractEventLoop, back: threading.Event) -> None:
    """In the compute thread: run the loop until it is stopped."""
    # A model may run an event loop of its own in predict, which asyncio forbids where another one is known to run.
    loop.call_soon(asyncio._set_running_loop, None)
    try:
        loop.run_forever()
    finally:
        back.set()


def _over(app: App, asked: list[float]) -> bool:
    return bool(asked) and app.clock() - asked[0] >= app.drain and app.hung()


async def _stand_in(app: App, listener: socket.socket, done: Callable[[], bool]) -> None:
    handler = StandIn(app)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(handler), sock=listener.dup())
    while not done():  # noqa: ASYNC110 - what is waited for happens in another thread, or by the clock
        await asyncio.sleep(LOOK)
    server.close()
    for _ in range(3):  # one that was just being accepted turns up a turn or two later
        for connection in list(handler.connections):
            connection.close()
        await asyncio.sleep(0.01)


class StandIn:
    """Answers new connections while a hung model holds the loop: what only looks is answered, the rest is refused."""

    closing = True
    read_timeout = READ_TIMEOUT

    def __init__(self, app: App) -> None:
        self._app = app
        self.max_body, self.answers, self.recorded = app.max_body, app.answers, app.recorded
        self.connections: set[Connection] = set()

    def handle(self, request: Request) -> None:
        if request.method in (b"GET", b"HEAD"):
            self._app.handle(request)
        else:
            self._app.refuse(
                request,
                LeptonError("the model hangs", hint="try again", code="hung", status=503, retry=True, retry_after=1),
            )

    def refused(self, code: int) -> None:
        self._app.refused(code)

    def make_id(self) -> bytes:
        return self._app.make_id()
