"""A folder whose files are renamed into place: which of them changed, as soon as they do, and no work in between."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

from leptonai.errors import PlatformError

_MOVED_TO, _DELETE, _OVERFLOW = 0x80, 0x200, 0x4000  # <linux/inotify.h>
_HEAD = struct.Struct("iIII")


class Watch:
    """``changed`` is called with the name of each file that was renamed into the folder or removed from it.

    When the kernel has dropped notices, it is called with every name that is there. Files made or written in place
    are not seen: the platform never does that.
    """

    def __init__(self, folder: Path, changed: Callable[[str], None]) -> None:
        """The folder is watched from here on; call ``begin`` for what is there already."""
        self.folder, self._changed = folder, changed
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, bytes(folder), _MOVED_TO | _DELETE) < 0:
            reason = os.strerror(ctypes.get_errno())
            raise PlatformError(f"cannot watch {folder}: {reason}", hint="is fs.inotify.max_user_instances too low?")

    def begin(self) -> None:
        """Tell of every file that is there, and of changes from now on, in the running loop."""
        asyncio.get_running_loop().add_reader(self._fd, self._read)
        self._all()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _all(self) -> None:
        for path in sorted(self.folder.iterdir()):
            self._changed(path.name)

    def _read(self) -> None:
        data = os.read(self._fd, 1 << 16)
        names: dict[str, None] = {}
        at = 0
        while at < len(data):
            _, mask, _, size = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            if mask & _OVERFLOW:
                self._all()
                return
            names[os.fsdecode(data[at : at + size].rstrip(b"\0"))] = None
            at += size
        for name in names:
            self._changed(name)
