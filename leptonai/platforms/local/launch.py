"""The last step before a replica runs: a private view of the files, another user, then exec.

Run as ``python -I -S launch.py`` with an Order as JSON on stdin; imports nothing but the standard library, so that it
starts in some 15 ms. It reads stdin to its end first: when the platform dies before it has recorded this process, the
order is cut short and nothing is started.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any, NoReturn

FAILED = 125  # exit code when the launch itself failed; the log says why
CLONE_NEWNS, MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT = 0x20000, 1, 2, 4, 32  # <linux/sched.h>, <linux/mount.h>
MS_BIND, MS_REC, MS_PRIVATE, PR_SET_NO_NEW_PRIVS = 4096, 16384, 1 << 18, 38


def main() -> NoReturn:
    try:
        order = json.loads(sys.stdin.buffer.read())
    except ValueError:
        os._exit(FAILED)
    try:
        os.umask(0o022)
        stdin = os.open("/dev/null", os.O_RDONLY)
        os.dup2(stdin, 0)
        isolation = order["isolation"]
        if isolation is not None:
            _hide(isolation["covers"], isolation["keeps"])
            _become(isolation["uid"])
        os.chdir(order["cwd"])
        os.execve(order["argv"][0], order["argv"], order["env"])  # noqa: S606
    except (OSError, KeyError, TypeError) as e:
        print(f"launch failed: {e}", file=sys.stderr, flush=True)
        os._exit(FAILED)


def _hide(covers: list[str], keeps: list[dict[str, Any]]) -> None:
    """In a mount namespace of our own, cover each folder by an empty one that carries only what is kept."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int, what: str) -> None:
        if result != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{what}: {os.strerror(code)}")

    def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
        texts = [None if t is None else t.encode() for t in (source, target, kind)]
        check(libc.mount(*texts, ctypes.c_ulong(flags), data.encode() if data else None), f"mount {target}")

    check(libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    sources = {keep["path"]: os.open(keep["path"], os.O_PATH | os.O_CLOEXEC) for keep in keeps}
    for cover in covers:
        if not os.path.isdir(cover):  # noqa: PTH112  an outer cover hides it already
            continue
        mount("tmpfs", cover, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m")
        for keep in keeps:
            path = keep["path"]
            if path == cover or not path.startswith(cover + "/"):
                continue
            os.makedirs(path, mode=0o755, exist_ok=True)  # noqa: PTH103
            mount(f"/proc/self/fd/{sources[path]}", path, None, MS_BIND | MS_REC)
            if not keep["write"]:
                mount("none", path, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID)
        mount("none", cover, None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _become(uid: int) -> None:
    """Drop every privilege for good: user, group, supplementary groups, and what a setuid program could give back."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError("no_new_privs refused")


if __name__ == "__main__":
    main()
