"""Who is who: each process of a platform holds one byte of ``<home>/lock``, so the kernel says who lives.

POSIX record locks die with their process, however it dies, and name their holder: no pid file can lie, nothing is left
to clean up, and ``kill -9`` of any process frees its seat at once. They belong to a process, not to a descriptor:
closing any descriptor of the file would release them, so a process opens it once and keeps it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import struct

from leptonai.client.home import Home
from leptonai.errors import PlatformError

NAMES = ("parent", "control", "ops")
_FLOCK = "hhlli4x"  # struct flock on 64-bit Linux: type, whence, start, length, pid


class Seats:
    """The seats of one home. One object per process and home, alive as long as the process."""

    def __init__(self, home: Home) -> None:
        """Raises PlatformError when the lock file cannot be opened."""
        self.home = home
        try:
            self._fd = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise PlatformError(
                f"{home.lock} cannot be opened: {e.strerror}", hint="does this home belong to you?"
            ) from e

    def take(self, name: str) -> bool:
        """Whether this process sits on ``name`` now; False when another one does."""
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, NAMES.index(name))
        except OSError as e:
            if e.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def leave(self, name: str) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, NAMES.index(name))

    def holder(self, name: str) -> int | None:
        """The pid of the other process that sits on ``name``; None when it is free or ours."""
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, NAMES.index(name), 1, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(self._fd, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else int(pid)

    def open_holder(self, name: str) -> int | None:
        """A pidfd of who sits on ``name``, certainly that process; None when nobody does."""
        while (pid := self.holder(name)) is not None:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            if self.holder(name) == pid:
                return pidfd
            os.close(pidfd)
        return None

    def end_holder(self, name: str, number: int, patience: float) -> bool:
        """Who sits on ``name`` was sent the signal ``number`` and has ended, or ``patience`` seconds are over; False
        when nobody sits there."""
        pidfd = self.open_holder(name)
        if pidfd is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        ended.poll(1e3 * patience)
        os.close(pidfd)
        return True
