"""``python -m leptonai.ops.jobs``: one job, from start to end, in a process that outlives whoever asked for it.

One JSON line in, a ``types.Job`` with ``env``; one out, an ``Ended``. Whatever the job does, this process ends it and
all it started once its time is over, so that a command cannot hang for ever even when ops is gone.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time

import msgspec

from leptonai.ops.jobs.form import Asked, Ended

CHUNK = 1 << 16
POLL = 0.1  # seconds until a silent command is looked at again


def run(asked: Asked) -> Ended:
    began = time.monotonic()
    ended = post(asked) if asked.job.url else command(asked)
    return msgspec.structs.replace(ended, seconds=round(time.monotonic() - began, 3))


def command(asked: Asked) -> Ended:
    """``code`` None: it could not be started, or it was ended because its time was over."""
    job = asked.job
    deadline = time.monotonic() + job.timeout
    try:
        child = subprocess.Popen(
            job.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=asked.env, start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as e:
        return Ended(error=f"it could not be started: {e}")
    try:
        said, late = listen(child, job.output, deadline)
    finally:  # also when we are told to end
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)  # it, or what it left behind
        child.wait()
    if late:
        return Ended(error=f"it was ended after {job.timeout:g} s without an end", output=said)
    return Ended(code=child.returncode, output=said)


def listen(child: subprocess.Popen[bytes], most: int, deadline: float) -> tuple[str, bool]:
    """The first ``most`` bytes of what it says until it ends, and whether it had not by the deadline."""
    said = b""
    assert child.stdout is not None
    with child.stdout as out, selectors.DefaultSelector() as watched:
        watched.register(out, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not watched.select(min(left, POLL)):
                if child.poll() is not None:  # a grandchild may hold the pipe open; it is not waited for
                    break
                continue
            block = os.read(out.fileno(), CHUNK)
            said += block[: max(0, most - len(said))]
            if not block:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.0, deadline - time.monotonic()))
                break
    return said.decode("utf-8", "replace"), child.poll() is None


def post(asked: Asked) -> Ended:
    """``code``: the HTTP status, 0 for one below 300."""
    import httpx

    job = asked.job
    try:
        with httpx.Client(timeout=job.timeout, trust_env=False) as client:
            headers = {"content-type": "application/json"}
            with client.stream("POST", job.url, content=job.body.encode(), headers=headers) as answer:
                said = b""
                deadline = time.monotonic() + job.timeout
                for block in answer.iter_raw():
                    said += block[: max(0, job.output - len(said))]
                    if len(said) >= job.output or time.monotonic() > deadline:
                        break
                code = 0 if answer.status_code < 300 else answer.status_code
                return Ended(code=code, output=said.decode("utf-8", "replace"))
    except httpx.TimeoutException:
        return Ended(error=f"it did not answer within {job.timeout:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as e:
        return Ended(error=f"it cannot be reached: {type(e).__name__}: {e}"[:300])


def leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    ended = run(msgspec.json.decode(sys.stdin.buffer.read(), type=Asked))
    sys.stdout.buffer.write(msgspec.json.encode(ended))
