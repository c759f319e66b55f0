"""How many files Envoy may watch: one inotify instance each, few of which the kernel gives, and without it aborts."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_USUAL = 128  # fs.inotify.max_user_instances of most kernels
_OTHERS = 8  # left for other programs of this user, and for Envoy's own three files twice


def watches(free: int) -> int:
    """Clusters that may have a file of endpoints of their own, so that two Envoys fit while one takes over."""
    return max(0, free // 2 - _OTHERS)


def free_inotify(besides: int = 0) -> int:
    """Inotify instances that this user may still open. Those of the process ``besides`` count as free."""
    limit = _USUAL
    with contextlib.suppress(OSError, ValueError):
        limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    used = 0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or process.name == str(besides):
            continue
        with contextlib.suppress(OSError):  # it ended, or is another user's
            if process.stat().st_uid == os.geteuid():
                used += sum(str(fd.readlink()) == "anon_inode:inotify" for fd in (process / "fd").iterdir())
    return max(0, limit - used)
