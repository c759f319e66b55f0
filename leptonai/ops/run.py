"""The process of ops: its telemetry store, its feeds, its socket, and a round of the watch each period."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from leptonai.ops.control import Control
from leptonai.ops.feeds import Feeds
from leptonai.ops.signals import Server, listen
from leptonai.ops.watch import Watch
from leptonai.platforms.embedded import Embedded
from leptonai.platforms.local.rundir import make_runtime_folder
from leptonai.platforms.prometheus import PrometheusStore
from leptonai.protocols import TelemetryStore
from leptonai.settings import Settings


def open_store(home: Path, settings: Settings, clock: Callable[[], float]) -> Embedded | PrometheusStore:
    """Where telemetry is kept: in the Prometheus that the settings name, else in the home folder."""
    if settings.prometheus.url:
        return PrometheusStore(settings.prometheus, settings.ops.keep, settings.telemetry, clock)
    return Embedded(home / "telemetry", settings.ops.keep, settings.telemetry, clock)


async def run(
    home: Path,
    settings: Settings,
    control: Control,
    clock: Callable[[], float] = time.time,
    socket: Path | None = None,
    store: TelemetryStore | None = None,
) -> None:
    """Watch until cancelled: one round every ``settings.ops.period`` seconds, signals served on ``socket``.

    ``<home>/ops.json`` names the socket as long as this runs; unless given it lies in the home's runtime folder, and
    telemetry is kept in ``<home>/telemetry``. PlatformError when nothing can listen there, TelemetryError when nothing
    can be kept.
    """
    socket = socket or make_runtime_folder(home) / "ops.sock"
    kept = store or open_store(home, settings, clock)
    feeds = Feeds(home, settings, kept, clock) if isinstance(kept, (Embedded, PrometheusStore)) else None
    watch = Watch(home, settings, control, kept, clock, feeds=feeds)
    server = Server(kept, feeds, watch.alerts, watch.families, lambda: watch.anomalies)
    serving = asyncio.create_task(server.serve([listen(socket)]))
    feeding = asyncio.create_task(feeds.run()) if feeds else None
    note = home / "ops.json"
    try:
        started = {"socket": str(socket), "pid": os.getpid(), "started": clock()}
        fresh = note.with_suffix(".json.new")
        fresh.write_bytes(msgspec.json.encode(started))
        fresh.replace(note)
        due = clock()
        while True:
            await watch.step(clock())
            due = max(due + settings.ops.period, clock() - settings.ops.period)  # late rounds are not made up for
            await asyncio.sleep(max(0.0, due - clock()))
    finally:
        server.should_exit = True
        if feeding:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        watch.close()
        await watch.pager.close()
        await watch.casebook.hand.jobs.close()
        if feeds:
            feeds.close()
        if isinstance(kept, (Embedded, PrometheusStore)) and store is None:
            await asyncio.to_thread(kept.close)
        note.unlink(missing_ok=True)
        socket.unlink(missing_ok=True)
