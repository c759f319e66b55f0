"""What a machine says of itself: processor, memory, disks, network, load, open files. For ops and for agents."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path

import psutil

from leptonai.ops.counters import Counters
from leptonai.types import Signal

# File systems that are no disk: a full one of these is no reason to wake anybody.
_NO_DISK = frozenset({"squashfs", "tmpfs", "devtmpfs", "overlay", "proc", "sysfs", "iso9660", "nsfs", "autofs"})
_NO_LINK = ("lo", "veth", "docker", "br-", "ifb")
DISKS_EVERY = 10.0  # seconds between two looks at the disks: statvfs may wait on a network file system


class Host:
    """Remembers the last counters. ``labels`` are given to every signal: none for the machine ops runs on."""

    def __init__(self, labels: dict[str, str] | None = None, folder: str = "/") -> None:
        self._labels = labels or {}
        self._folder = folder
        self._cpu: tuple[float, float] | None = None
        self._net = Counters()
        self._last: float | None = None
        self._disks: list[tuple[str, dict[str, str], float]] = []
        self._disks_at = float("-inf")

    def read(self, now: float) -> list[Signal]:
        """What is seen at ``now``; rates and ``host_cpu_ratio`` (0..1, all cores) from the second look on."""
        elapsed = now - self._last if self._last is not None else 0.0
        self._last = now
        found: list[tuple[str, dict[str, str], float]] = []
        if (busy := self._busy()) is not None:
            found.append(("host_cpu_ratio", {}, busy))
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        found += [
            ("host_memory_available_bytes", {}, float(memory.available)),
            ("host_memory_used_ratio", {}, 1.0 - memory.available / memory.total if memory.total else 0.0),
            ("host_swap_used_bytes", {}, float(swap.used)),
            ("host_load_per_core_ratio", {}, os.getloadavg()[0] / (os.cpu_count() or 1)),
        ]
        found += _files()
        if now - self._disks_at >= DISKS_EVERY or now < self._disks_at:
            self._disks_at, self._disks = now, disks(self._folder)
        found += self._disks
        rose = self._net.rise(_links())
        for key, value in rose.items():
            assert isinstance(key, tuple)
            if elapsed > 0:
                found.append((f"host_network_{key[1]}_per_second", {"interface": key[0]}, value / elapsed))
        return [Signal(name=n, labels={**self._labels, **own}, at=now, value=v) for n, own, v in found]

    def _busy(self) -> float | None:
        times = psutil.cpu_times()
        total, idle = float(sum(times[:8])), float(times.idle + getattr(times, "iowait", 0.0))
        before, self._cpu = self._cpu, (total, idle)
        if before is None or total <= before[0]:
            return None
        return min(max(1.0 - (idle - before[1]) / (total - before[0]), 0.0), 1.0)


def disks(folder: str) -> list[tuple[str, dict[str, str], float]]:
    """Free bytes, used share and used share of inodes: of every disk, and of the file system under ``folder``."""
    mounts = {folder: folder}
    try:
        for part in psutil.disk_partitions(all=False):
            if part.fstype not in _NO_DISK and "loop" not in part.device:
                mounts.setdefault(part.device, part.mountpoint)
    except OSError:
        pass
    found: list[tuple[str, dict[str, str], float]] = []
    seen: set[int] = set()
    for mount in mounts.values():
        try:
            device, size = Path(mount).stat().st_dev, os.statvfs(mount)
        except OSError:
            continue
        if device in seen or not size.f_blocks or not Path(mount).is_dir():
            continue
        seen.add(device)
        own = {"mount": mount}
        free, used = size.f_bavail, size.f_blocks - size.f_bfree
        found.append(("host_disk_free_bytes", own, float(free * size.f_frsize)))
        if used + free:
            found.append(("host_disk_used_ratio", own, used / (used + free)))  # as df(1) counts
        if size.f_files:
            found.append(("host_disk_inodes_used_ratio", own, 1.0 - size.f_favail / size.f_files))
    return found


def _files() -> list[tuple[str, dict[str, str], float]]:
    try:
        used, _, limit = Path("/proc/sys/fs/file-nr").read_text().split()  # proc(5): allocated, free, limit
    except (OSError, ValueError):
        return []
    return [("host_open_files_count", {}, float(used)), ("host_open_files_ratio", {}, float(used) / float(limit))]


def _links() -> list[tuple[Hashable, float]]:
    found: list[tuple[Hashable, float]] = []
    for name, link in psutil.net_io_counters(pernic=True).items():
        if not name.startswith(_NO_LINK):
            found += [
                ((name, "received_bytes"), float(link.bytes_recv)),
                ((name, "sent_bytes"), float(link.bytes_sent)),
                ((name, "errors"), float(link.errin + link.errout + link.dropin + link.dropout)),
            ]
    return found
