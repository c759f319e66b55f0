"""The agent's two threads: one looks and writes to the buffer, one sends what is there."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import httpx

from leptonai.errors import LeptonError, from_body
from leptonai.ops import gpu
from leptonai.ops.agent.batch import finite
from leptonai.ops.agent.buffer import Buffer
from leptonai.ops.agent.lines import LogFile, record
from leptonai.ops.agent.processes import Processes
from leptonai.ops.host import Host

log = logging.getLogger("leptonai.agent")
FIRST, LONGEST = 0.5, 30.0  # seconds between tries while the link is down, doubled each time
Sent = Literal["all", "retry"]


class Agent:
    """Watches this machine. ``step`` is one look, ``send`` empties the buffer; ``run`` does both until told to stop."""

    def __init__(
        self,
        buffer: Buffer,
        to: str,
        token: str,
        *,
        workspace: str,
        logs: Sequence[Path] = (),
        processes: Sequence[str] = (),
        interval: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._buffer, self._interval, self._clock = buffer, interval, clock
        self._url, self._workspace = f"{to.rstrip('/')}/api/v1/agent", workspace
        self._host, self._processes, self._gpus = Host(), Processes(processes), gpu.Nvml()
        known = buffer.state.positions
        self._logs = [LogFile(p.absolute(), known.get(str(p.absolute()))) for p in logs]
        self._http = httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=10.0, trust_env=False)
        self._fresh, self._stop = threading.Event(), threading.Event()
        self._said = ""

    def step(self) -> None:
        """What is seen now is in the buffer. A full disk is told, and costs what was seen but no log line."""
        now = self._clock()
        signals = self._host.read(now) + self._processes.read(now) + gpu.signals(self._gpus.read(), now)
        before = {str(f.path): f.position for f in self._logs}
        records = [record(text, now, f.path) for f in self._logs for text in f.lines()]
        try:
            self._buffer.put(finite(signals), records, {str(f.path): f.position for f in self._logs})
            self._fresh.set()
        except OSError as e:
            self._tell(f"the buffer cannot be written: {e}")
            for i, file in enumerate(self._logs):
                file.close()
                self._logs[i] = LogFile(file.path, before[str(file.path)])

    def send(self) -> Sent:
        """Send the batches in their order; "retry" when the platform could not be reached or was not ready."""
        while (found := self._buffer.oldest()) is not None:
            path, data = found
            try:
                answer = self._http.post(
                    self._url,
                    params={"workspace": self._workspace},
                    content=data,
                    headers={"content-encoding": "gzip", "content-type": "application/json"},
                )
            except httpx.HTTPError as e:
                self._tell(f"{self._url}: {str(e) or type(e).__name__}")
                return "retry"
            if answer.status_code >= 400:
                error = _error(answer)
                self._tell(f"{self._url}: {error.message} ({error.hint})")
                if answer.status_code not in (400, 413):  # also a token that an admin has yet to make
                    return "retry"
                log.error("%s is refused for good and dropped", path.name)
            elif self._said:
                log.info("the platform takes batches again, %d wait", len(self._buffer.waiting()) - 1)
                self._said = ""
            path.unlink(missing_ok=True)
        return "all"

    def run(self) -> None:
        """Look every ``interval`` seconds and send, until ``stop``; then what was seen stays in the buffer."""
        sender = threading.Thread(target=self._send_on, name="sender", daemon=True)
        sender.start()
        due = time.monotonic()
        while True:
            self.step()
            due = max(due + self._interval, time.monotonic() - self._interval)  # late looks are not made up for
            if self._stop.wait(max(0.0, due - time.monotonic())):
                break
        self._fresh.set()
        sender.join(12.0)
        self.close()

    def stop(self) -> None:
        self._stop.set()

    def close(self) -> None:
        for file in self._logs:
            file.close()
        self._http.close()
        self._buffer.close()

    def _send_on(self) -> None:
        pause = FIRST
        while True:
            self._fresh.wait()
            self._fresh.clear()
            if self.send() == "all":
                pause = FIRST
                if self._stop.is_set():
                    return
                continue
            if self._stop.wait(pause):
                return
            pause = min(2 * pause, LONGEST)
            self._fresh.set()

    def _tell(self, said: str) -> None:
        if said != self._said:
            log.error("%s; what is seen waits on disk, told once", said)
            self._said = said


def _error(answer: httpx.Response) -> LeptonError:
    try:
        return from_body(answer.status_code, answer.json())
    except (ValueError, TypeError, AttributeError):
        return LeptonError(f"answered {answer.status_code} by something that is no leptonai API", hint="see --to")
