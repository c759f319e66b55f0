"""The parent: keeps control and ops alive, adopting those that run. It does nothing else, so that it never fails.

Told to stop (SIGTERM, SIGINT), it stops both and ends; replicas and Envoy keep serving.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from leptonai.client.home import Home
from leptonai.daemon.seats import Seats
from leptonai.daemon.spawn import open_log, spawn

STABLE = 10.0  # seconds of life after which a death counts as the first again
FIRST, MOST = 0.5, 30.0  # seconds before the second start, doubled each time up to MOST
GRACE = 10.0  # seconds between SIGTERM and SIGKILL when stopping


def delay(deaths: int) -> float:
    """Seconds to wait before the start after ``deaths`` early deaths in a row: none for the first."""
    return 0.0 if deaths <= 1 else float(min(FIRST * 2 ** (deaths - 2), MOST))


@dataclass
class Child:
    """``pidfd`` None: nothing runs that we know of, and it may be started from ``due`` on."""

    name: str
    pidfd: int | None = None
    process: subprocess.Popen[bytes] | None = None  # None: adopted
    since: float = 0.0
    due: float = 0.0
    deaths: int = 0


@dataclass
class Parent:
    home: Home
    seats: Seats
    children: list[Child] = field(default_factory=lambda: [Child("control"), Child("ops")])

    def __post_init__(self) -> None:
        self.log = open_log(self.home, "parent")
        self.poll = select.poll()

    def look(self, now: float) -> float:
        """Adopt or start what is missing; returns the seconds until that must be looked at again."""
        wait = 60.0
        for child in self.children:
            if child.pidfd is not None:
                continue
            adopted = self.seats.open_holder(child.name)
            if adopted is not None:
                self.hold(child, adopted, now)
                self.log.info("adopted %s, pid %s", child.name, self.seats.holder(child.name))
            elif now >= child.due:
                child.process = spawn(self.home, child.name)
                self.hold(child, os.pidfd_open(child.process.pid), now)
                self.log.info("started %s, pid %d", child.name, child.process.pid)
            else:
                wait = min(wait, child.due - now)
        return wait

    def hold(self, child: Child, pidfd: int, now: float) -> None:
        child.pidfd, child.since = pidfd, now
        self.poll.register(pidfd, select.POLLIN)

    def ended(self, child: Child, now: float) -> None:
        assert child.pidfd is not None
        self.poll.unregister(child.pidfd)
        os.close(child.pidfd)
        code = child.process.wait() if child.process else None
        child.deaths = 1 if now - child.since >= STABLE else child.deaths + 1
        child.due = now + delay(child.deaths)
        child.pidfd = child.process = None
        self.log.warning("%s ended (%s) after %.1f s", child.name, code, now - child.since)

    def stop(self) -> None:
        """Neither child runs: SIGTERM, and SIGKILL after GRACE seconds."""
        living = [c for c in self.children if c.pidfd is not None]
        for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
            for child in living:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(child.pidfd or -1, number)
            deadline = time.monotonic() + patience
            while living and time.monotonic() < deadline:
                ready = {fd for fd, _ in self.poll.poll(max(0.0, deadline - time.monotonic()) * 1e3)}
                for child in [c for c in living if c.pidfd in ready]:
                    self.ended(child, time.monotonic())
                    living.remove(child)


def reap(children: Iterable[int]) -> None:
    """Of processes whose parents died before them, none is left as a zombie: for the first process of a container.

    Of ``children`` the end is waited for elsewhere.
    """
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if found.si_pid in children:
                return
            os.waitpid(found.si_pid, 0)


def run(home: Home) -> int:
    """Sit on the parent's seat until told to stop; at once 0 when another parent sits there."""
    seats = Seats(home)
    if not seats.take("parent"):
        return 0
    parent = Parent(home, seats)
    told, wake = socket.socketpair()
    for end in (told, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    parent.poll.register(told.fileno(), select.POLLIN)
    while True:
        wait = parent.look(time.monotonic())
        ready = {fd for fd, _ in parent.poll.poll(wait * 1e3)}
        if told.fileno() in ready and set(told.recv(64)) & {signal.SIGTERM, signal.SIGINT}:
            parent.log.info("told to stop")
            parent.poll.unregister(told.fileno())
            parent.stop()
            return 0
        for child in parent.children:
            if child.pidfd in ready:
                parent.ended(child, time.monotonic())
        reap({c.process.pid for c in parent.children if c.process})
