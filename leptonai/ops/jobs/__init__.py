"""Jobs of runbooks: each is a process of its own, bounded in time and output, which nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

import msgspec

from leptonai.ops.jobs.form import Asked, Ended
from leptonai.types import Job

GRACE = 5.0  # seconds beyond its timeout that the process of a job may take to end it
KEPT = ("PATH", "LANG", "LC_ALL", "HOME", "TZ")  # of our environment: what a program needs, and no secret of ours
MOST = 4  # at once


class Jobs:
    """By the id of the proposal that gave leave. ``home``: of the platform, for jobs that speak to it."""

    def __init__(self, home: str = "") -> None:
        self._home = home
        self._running: dict[str, asyncio.Task[Ended]] = {}

    def start(self, id: str, job: Job, about: dict[str, str]) -> None:
        """The job is on its way; ``about`` becomes ``LEPTONAI_...`` in its environment. One that is known is left."""
        if id in self._running:
            return
        env = {name: os.environ[name] for name in KEPT if name in os.environ}
        if self._home:
            env["LEPTONAI_HOME"] = self._home
        env |= {f"LEPTONAI_{name.upper()}": value for name, value in about.items()}
        if sum(not task.done() for task in self._running.values()) >= MOST:
            self._running[id] = asyncio.create_task(_refused())
        else:
            self._running[id] = asyncio.create_task(_run(Asked(job=job, env=env)))

    def running(self, id: str) -> bool:
        return id in self._running and not self._running[id].done()

    def ended(self, id: str) -> Ended | None:
        """How it ended, told once; None while it runs, and for one that is not known here."""
        if id not in self._running or self.running(id):
            return None
        return self._running.pop(id).result()

    async def close(self) -> None:
        """What still runs is ended. (Should we be killed instead, each job ends itself once its time is over.)"""
        tasks = [*self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _refused() -> Ended:
    return Ended(error=f"{MOST} jobs run already")


async def _run(asked: Asked) -> Ended:
    child = None
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "leptonai.ops.jobs",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        async with asyncio.timeout(asked.job.timeout + GRACE):
            out, _ = await child.communicate(msgspec.json.encode(asked))
        return msgspec.json.decode(out, type=Ended)
    except TimeoutError:
        return Ended(error=f"its process did not end within {asked.job.timeout + GRACE:g} s")
    except (OSError, msgspec.MsgspecError) as e:
        return Ended(error=f"its process failed: {e}"[:300])
    finally:
        if child is not None and child.returncode is None:
            child.terminate()  # which ends what it started, too
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await child.wait()
            if child.returncode is None:
                child.kill()
                await child.wait()
