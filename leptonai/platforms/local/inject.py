"""Real faults for drills, from inside the platform or from a process it does not know of.

    python -m leptonai.platforms.local.inject stop --pid 4711 --heal-after 30
    python -m leptonai.platforms.local.inject leak --socket /run/leptonai/1a2b3c4d/5e6f7a8b/s --amount 5e6

``kill`` and ``stop`` are signals to the process that computes. ``leak``, ``hog``, ``delay`` and ``error`` are done by
the replica itself, which also heals them. ``disk_full`` makes every further write of the replica to a file fail (its
limit on file sizes becomes 0: EFBIG where a full disk says ENOSPC), whichever file it has open already, without
touching any other process's disk. What a signal or a limit did is healed by a detached timer that outlives us.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import sys
from typing import Any, NamedTuple

import msgspec

from leptonai.errors import LeptonError, PlatformError
from leptonai.platforms.local.probe import Unanswered, UnixClient
from leptonai.platforms.local.process import Process, boot_id, start_ticks

_IN_REPLICA = ("leak", "hog", "delay", "error")
# Limits of another user's process need a capability that root may lack in a container; its own user needs none.
_HAND = """
import os, resource, select, signal, sys
pid, ticks, what, delay = int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
fd = os.pidfd_open(pid)
stat = open(f"/proc/{pid}/stat").read()
if stat[stat.rindex(")") + 2:].split()[19] != ticks:
    sys.exit(1)
wait = select.poll()
wait.register(fd, select.POLLIN)
if wait.poll(delay * 1000):
    sys.exit(1)  # it has ended: nothing to heal
if what == "continue":
    signal.pidfd_send_signal(fd, signal.SIGCONT)
else:
    uid = os.stat(f"/proc/{pid}").st_uid
    if os.geteuid() == 0 != uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0 if what == "fill" else hard, hard))
"""
_END = {"stop": "continue", "disk_full": "empty"}


class Target(NamedTuple):
    """The process that computes, and the socket it listens on ("" when not known)."""

    pid: int
    ticks: int
    socket: str = ""


class Injected(NamedTuple):
    id: str
    kind: str
    target: Target


async def inject(kind: str, target: Target, amount: float, heal_after: float) -> Injected:
    """The fault is in force when this returns, and heals after ``heal_after`` seconds whatever becomes of us.

    PlatformError when the process is gone, the replica refuses, or the kind is not known.
    """
    injected = Injected(f"{kind}-{secrets.token_hex(4)}", kind, target)
    if kind in _IN_REPLICA:
        await _ask(target, {"kind": kind, "amount": amount, "heal_after": heal_after})
        return injected
    process = Process.adopt(target.pid, target.ticks, boot_id())
    if process is None:
        raise PlatformError(f"process {target.pid} has ended", hint="leptonai status lists replicas")
    try:
        if kind == "kill":
            process.signal(signal.SIGKILL)
        elif kind == "stop":
            _heal_later(injected, heal_after)  # first, so that no fault is ever without its end
            process.signal(signal.SIGSTOP)
        elif kind == "disk_full":
            _heal_later(injected, heal_after)
            if await _by_hand(injected, "fill") != 0:
                raise PlatformError(f"cannot limit the files of process {target.pid}", hint="same user or root?")
        else:
            raise PlatformError(f"fault {kind!r} is not known", hint="kill, stop, leak, hog, delay, error, disk_full")
    except OSError as e:
        raise PlatformError(f"cannot inject {kind} into {target.pid}: {e.strerror}", hint="same user or root?") from e
    finally:
        process.release()
    return injected


async def heal(injected: Injected) -> None:
    """The fault is over when this returns; nothing happens when its process has ended. A kill cannot be healed."""
    if injected.kind in _IN_REPLICA:
        await _ask(injected.target, {"kind": injected.kind, "amount": 0.0, "heal_after": 0.0})
    elif injected.kind in _END:
        await _by_hand(injected, _END[injected.kind])


async def _by_hand(injected: Injected, what: str) -> int:
    hand = await asyncio.create_subprocess_exec(*_hand(injected, what, 0.0), stderr=asyncio.subprocess.DEVNULL)
    return await hand.wait()


def _heal_later(injected: Injected, delay: float) -> None:
    """A process of nobody's: in its own session, its parent gone at once, so that no one need reap it."""
    code = "import os,sys; os.fork() and os._exit(0); os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"
    argv = [sys.executable, "-I", "-S", "-c", code, *_hand(injected, _END[injected.kind], delay)]
    silent: list[Any] = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
    os.waitpid(os.posix_spawn(argv[0], argv, {}, file_actions=silent), 0)


def _hand(injected: Injected, what: str, delay: float) -> list[str]:
    target = injected.target
    return [sys.executable, "-I", "-S", "-c", _HAND, str(target.pid), str(target.ticks), what, str(delay)]


async def _ask(target: Target, fault: dict[str, Any]) -> None:
    client = UnixClient(target.socket)
    try:
        answer = await client.request("POST", "/-/fault", 5.0, msgspec.json.encode(fault))
    except Unanswered as e:
        raise PlatformError(f"the replica at {target.socket} does not answer: {e}", hint="is it running?") from e
    finally:
        client.close()
    if answer.status >= 300:
        raise PlatformError(f"the replica refuses {fault}: {answer.body.decode(errors='replace')[:300]}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m leptonai.platforms.local.inject", description="Inject one fault.")
    parser.add_argument("kind", choices=("kill", "stop", *_IN_REPLICA, "disk_full"))
    parser.add_argument("--pid", type=int, default=0, help="of the process that computes (kill, stop, disk_full)")
    parser.add_argument("--socket", default="", help="of the replica (leak, hog, delay, error)")
    parser.add_argument("--amount", type=float, default=0.0, help="leak bytes/s, hog cores, delay seconds, error share")
    parser.add_argument("--heal-after", type=float, default=60.0, help="seconds")
    asked = parser.parse_args(argv)
    needed = "--socket" if asked.kind in _IN_REPLICA else "--pid"
    if not (asked.socket if needed == "--socket" else asked.pid):
        parser.error(f"{asked.kind} needs {needed}")
    ticks = start_ticks(asked.pid) if asked.pid else 0
    try:
        target = Target(asked.pid, ticks or 0, asked.socket)
        print(asyncio.run(inject(asked.kind, target, asked.amount, asked.heal_after)).id)
    except LeptonError as e:
        print(f"{e.message}. {e.hint}", file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
