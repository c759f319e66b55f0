"""Processes that outlive us: started in their own session, known by pid and start time, watched by pidfd."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import os
import signal
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from leptonai.errors import StartError

_PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info), its first 64 bytes, linux/pidfd.h
_PIDFD_INFO_EXIT = 1 << 3  # answered since Linux 6.15, also for processes that are not our children


class Ending(NamedTuple):
    """How a process ended: an exit code, or a signal, or neither when nobody could tell."""

    code: int | None = None
    signal: int | None = None

    @property
    def text(self) -> str:
        if self.signal is not None:
            with contextlib.suppress(ValueError):
                return signal.Signals(self.signal).name
            return f"signal {self.signal}"
        return "exit status unknown" if self.code is None else f"exit code {self.code}"


def start_ticks(pid: int) -> int | None:
    """The start time of ``pid`` in clock ticks since boot; None when there is no such process.

    Pid and start time together name a process for good: a reused pid has another start time.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields else None


@functools.cache
def boot_id() -> str:
    """Names this boot of the machine: start times count from it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_stopped(pid: int) -> bool:
    """True while ``pid`` is stopped by a signal (SIGSTOP) or a debugger."""
    fields = _stat(pid)
    return bool(fields) and fields[0] in ("T", "t")


def rss_bytes(pid: int) -> int:
    """Resident memory of ``pid``; 0 when it is gone."""
    fields = _stat(pid)
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


class Starved:
    """How long ``pid`` could have run since now and had no processor: the thread of it that waited longest.

    Run-queue delay of /proc/<pid>/task/*/schedstat (Documentation/scheduler/sched-stats.rst), throttling by a control
    group's quota included. A deadlock, a stopped process and an endless loop do not wait for a processor.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = _run_delays(pid)

    def seconds(self) -> float:
        """0 where the kernel does not count it, or the process is gone."""
        return max((at - self._before.get(tid, 0.0) for tid, at in _run_delays(self._pid).items()), default=0.0)


def _run_delays(pid: int) -> dict[str, float]:
    found: dict[str, float] = {}
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError, IndexError, ValueError):
                found[task.name] = int((task / "schedstat").read_text().split()[1]) / 1e9
    return found


def session_members(leader: int) -> list[int]:
    """Processes left in the session that ``leader`` made and died in; [] when its pid is in use again."""
    fields = _stat(leader)
    if fields and fields[0] not in ("Z", "X"):
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(leader):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(int(entry.name)) == leader:
                    found.append(int(entry.name))
    return found


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text[text.rindex(")") + 2 :].split()  # the name may hold blanks and brackets; state is field 0 here


class Process:
    """One live process held by a pidfd, so that a signal never reaches a stranger who got the same pid."""

    def __init__(self, pid: int, ticks: int, pidfd: int) -> None:
        self.pid, self.ticks, self._pidfd = pid, ticks, pidfd
        self.ending: Ending | None = None
        self._ended = asyncio.Event()
        self._watched = False

    @classmethod
    def spawn(cls, argv: Sequence[str], env: Mapping[str, str], log: Path, stdin: int | None = None) -> Self:
        """A process in its own session, its output appended to ``log``. StartError when it cannot be started."""
        actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0) if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        try:
            pid = os.posix_spawn(
                argv[0], list(argv), dict(env), file_actions=actions, setsid=True, setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
            )  # fmt: skip
        except OSError as e:
            raise StartError(f"cannot start {argv[0]}: {e.strerror}", hint=f"its log would be {log}") from e
        ticks = start_ticks(pid)
        assert ticks is not None  # our own child stays at least a zombie until we reap it
        return cls(pid, ticks, os.pidfd_open(pid))

    @classmethod
    def adopt(cls, pid: int, ticks: int, boot: str) -> Self | None:
        """The running process with this pid and start time in this boot, or None when it has ended."""
        if pid == 0 or boot != boot_id():
            return None
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as e:
            if e.errno in (errno.ESRCH, errno.EINVAL, errno.ENOENT):  # nobody, or by now a thread of somebody
                return None
            raise
        fields = _stat(pid)  # read after opening: the pidfd holds exactly the process that was read
        if not fields or fields[0] in ("Z", "X") or int(fields[19]) != ticks:
            os.close(pidfd)
            return None
        return cls(pid, ticks, pidfd)

    @property
    def alive(self) -> bool:
        return self.ending is None

    def watch(self, ended: Callable[[Ending], None] | None = None) -> None:
        """From now on the exit is seen by the running event loop, the process is reaped and ``ended`` is called."""

        def readable() -> None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            self._watched = False
            self.ending = self._reap()
            for left in session_members(self.pid):  # what it had started itself goes with it
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(left, signal.SIGKILL)
            self._ended.set()
            if ended is not None:
                ended(self.ending)

        asyncio.get_running_loop().add_reader(self._pidfd, readable)
        self._watched = True

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens when the process has ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def rss(self) -> int:
        """Resident bytes; 0 when it has ended."""
        return rss_bytes(self.pid) if self.alive else 0

    def stopped(self) -> bool:
        return self.alive and is_stopped(self.pid)

    async def wait(self, timeout: float) -> bool:
        """True once it has ended, False after ``timeout`` seconds. It must be watched."""
        try:
            async with asyncio.timeout(timeout):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self, grace: float) -> None:
        """SIGTERM, ``grace`` seconds, SIGKILL; returns when it has ended. It must be watched."""
        self.signal(signal.SIGTERM)
        if not await self.wait(grace):
            self.signal(signal.SIGKILL)
            await self._ended.wait()

    def release(self) -> None:
        """Stop watching and forget it; the process itself is not touched."""
        if self._watched:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            self._watched = False
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _reap(self) -> Ending:
        try:
            found = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:  # adopted: somebody else is its parent
            return self._ending_of_stranger()
        if found is None or found.si_code == os.CLD_EXITED:
            return Ending(code=found.si_status if found else None)
        return Ending(signal=found.si_status)

    def _ending_of_stranger(self) -> Ending:
        """What the kernel tells of a process that is not our child: by pidfd once reaped, by /proc before that."""
        info = bytearray(struct.pack("<Q", _PIDFD_INFO_EXIT).ljust(64, b"\0"))
        with contextlib.suppress(OSError):  # older kernels
            fcntl.ioctl(self._pidfd, _PIDFD_GET_INFO, info)
            if struct.unpack_from("<Q", info)[0] & _PIDFD_INFO_EXIT:
                return _ending(struct.unpack_from("<i", info, 60)[0])
        fields = _stat(self.pid)
        return _ending(int(fields[49])) if fields and fields[0] == "Z" and int(fields[19]) == self.ticks else Ending()


def _ending(status: int) -> Ending:
    if os.WIFSIGNALED(status):
        return Ending(signal=os.WTERMSIG(status))
    return Ending(code=os.WEXITSTATUS(status))
