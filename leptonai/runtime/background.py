"""The thread of users' asynchronous code: async methods of a model, and ASGI apps mounted beside it.

It has an event loop of its own, so that user code which blocks silences neither the probes nor the compute thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from leptonai.errors import LeptonError
from leptonai.runtime.batching import Job
from leptonai.runtime.flow import Flow, Open, Step

BEAT = 0.5  # seconds between heartbeats of the loop
BLOCKED = 5.0  # seconds without one after which the loop counts as blocked: code that awaits never takes that long
FULL = 0.01  # seconds until a client that reads slowly is looked at again


class Background:
    """Starts its thread on first use; the thread ends with the process."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.beat = 0.0  # monotonic seconds of the last heartbeat; 0: not started

    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop. Callable in any thread."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._run, args=(self._loop,), name="background", daemon=True).start()
            return self._loop

    def blocked(self, now: float) -> float:
        """Seconds for which the loop has not turned, once they are too many; 0 while it turns or was never used."""
        silent = now - self.beat - BEAT if self.beat else 0.0
        return silent if silent > BLOCKED else 0.0

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)

        def beat() -> None:
            self.beat = monotonic()
            loop.call_later(BEAT, beat)

        loop.call_soon(beat)
        loop.run_forever()

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run it there and wait, in another thread, for what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop()).result()

    def begin(self, work: Coroutine[Any, Any, None]) -> Callable[[], None]:
        """Run it there; the answer cancels it. Both are callable in any thread."""
        loop = self.loop()
        started: list[asyncio.Task[None]] = []

        def start() -> None:
            task = loop.create_task(work)
            started.append(task)
            self._tasks.add(task)  # the loop itself keeps only weak references
            task.add_done_callback(self._tasks.discard)

        def stop() -> None:
            for task in started:
                task.cancel()

        loop.call_soon_threadsafe(start)
        return lambda: _quiet(loop, stop)


def _quiet(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:  # the loop has closed
        pass


BACKGROUND = Background()


async def run(job: Job, emit: Callable[[Step], None], wrap: Callable[[BaseException], LeptonError]) -> None:
    """Run an asynchronous flow to its end; ``emit`` gets its steps. Cancelled when the client goes."""
    flow: Flow = job.flow
    stream = Open(job, iter(()), monotonic(), [])
    items: Any = None
    try:
        items = flow.begin()
        if hasattr(items, "__aiter__"):
            async for item in items:
                stream.seconds = monotonic() - stream.started
                step = stream.took(item)
                if step is not None:
                    emit(step)
                while job.request.full and not job.request.gone:  # noqa: ASYNC110 - the other loop says so by a flag
                    await asyncio.sleep(FULL)
        else:
            value = await items
            stream.seconds = monotonic() - stream.started
            step = stream.took(value)
            if step is not None:
                emit(step)
        emit(stream.ended())
    except asyncio.CancelledError as e:
        emit(stream.left() if job.request.gone else stream.failed(wrap(e)))
    except BaseException as e:  # noqa: BLE001 - whatever a model raises fails its request only
        emit(stream.failed(wrap(e)))
    finally:
        if hasattr(items, "aclose"):
            await items.aclose()
