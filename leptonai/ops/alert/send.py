"""``python -m leptonai.ops.alert.send``: one message to some apprise URLs, in a process of its own.

apprise and its plugins are heavy and block; here they cost the one who watches nothing, and a receiver that hangs is
ended with the process. One JSON line in, ``{"urls", "title", "body", "severity"}``; one out: ``{url index: error}`` of
those that failed. URLs come by stdin because they carry passwords.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from leptonai.ops.alert.message import Message

KINDS = {"critical": "failure", "warning": "warning", "info": "info", "resolved": "success"}
LONGEST = 300  # characters of an error that is kept


class Job(msgspec.Struct):
    urls: tuple[str, ...]
    title: str
    body: str
    severity: str


async def deliver(urls: Sequence[str], message: Message, timeout: float) -> dict[int, str]:
    """Send ``message``; what failed by the index of its URL, {} when all took it. Never raises, never takes longer."""
    job = Job(tuple(urls), message.title, message.body, message.severity)
    child = None
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "leptonai.ops.alert.send",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(timeout):
            out, _ = await child.communicate(msgspec.json.encode(job))
        return msgspec.json.decode(out, type=dict[int, str])
    except TimeoutError:
        return dict.fromkeys(range(len(urls)), f"no answer within {timeout:g} s")
    except (OSError, msgspec.MsgspecError) as e:
        return dict.fromkeys(range(len(urls)), f"the sending process failed: {e}"[:LONGEST])
    finally:
        if child is not None and child.returncode is None:
            child.kill()
            await child.wait()


def send(job: Job) -> dict[int, str]:
    """What failed, and how, by the index of its URL."""
    import apprise  # heavy: this process only

    capture: Any = apprise.LogCapture

    failed: dict[int, str] = {}
    for number, url in enumerate(job.urls):
        server = apprise.Apprise()
        with capture(level=logging.WARNING) as told:
            try:
                fine = server.add(url) and server.notify(
                    body=job.body,
                    title=job.title,
                    notify_type=KINDS.get(job.severity, "info"),
                    body_format=apprise.NotifyFormat.TEXT,
                )
            except Exception as e:  # noqa: BLE001 - a plugin of somebody else; the others must still be tried
                fine = False
                told.write(f"{type(e).__name__}: {e}")
            if not fine:
                lines = told.getvalue().strip().splitlines()
                failed[number] = (lines[-1] if lines else "apprise could not send it")[:LONGEST]
    return failed


if __name__ == "__main__":
    answer = send(msgspec.json.decode(sys.stdin.buffer.read(), type=Job))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
