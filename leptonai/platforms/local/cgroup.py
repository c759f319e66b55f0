"""Limits of memory and processor by control groups, version 1 or 2, below our own group so that its limits hold too."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from leptonai.types import Resources

_ROOT = Path("/sys/fs/cgroup")
_PERIOD = 100_000  # microseconds in which a processor quota is counted; the kernel's default


def create(name: str, limits: Resources) -> tuple[str, ...]:
    """Groups called ``name`` that hold ``limits``; () when there is nothing to limit.

    OSError when this machine does not let us: then nothing is left behind.
    """
    wanted = [c for c, limit in (("memory", limits.memory), ("cpu", limits.cpu)) if limit is not None]
    made: list[Path] = []
    try:
        if wanted and (_ROOT / "cgroup.controllers").exists():
            group = _parent_v2(wanted) / name
            group.mkdir()
            made.append(group)
            if limits.memory is not None:
                (group / "memory.max").write_text(str(limits.memory))
                with contextlib.suppress(OSError):
                    (group / "memory.swap.max").write_text("0")
            if limits.cpu is not None:
                (group / "cpu.max").write_text(f"{int(limits.cpu * _PERIOD)} {_PERIOD}")
            return (str(group),)
        for controller in wanted:
            group = _own_v1(controller) / name
            group.mkdir()
            made.append(group)
            if controller == "memory":
                (group / "memory.limit_in_bytes").write_text(str(limits.memory))
                with contextlib.suppress(OSError):
                    (group / "memory.memsw.limit_in_bytes").write_text(str(limits.memory))
            else:
                (group / "cpu.cfs_period_us").write_text(str(_PERIOD))
                (group / "cpu.cfs_quota_us").write_text(str(int((limits.cpu or 0) * _PERIOD)))
    except OSError:
        remove([str(g) for g in made])
        raise
    return tuple(str(g) for g in made)


def how(label: str) -> str:
    """In words, how limits are held on this machine. Tried for real."""
    try:
        groups = create(f"leptonai-{label}-try", Resources(cpu=1.0, memory=1 << 28))
    except OSError as e:
        return f"memory watched, processors not limited: {e.strerror or e}"
    remove(groups)
    return "control groups, version " + ("2" if len(groups) == 1 else "1")


def enter(groups: Sequence[str], pid: int) -> None:
    for group in groups:
        (Path(group) / "cgroup.procs").write_text(str(pid))


def oom_kills(groups: Sequence[str]) -> int:
    """How often the kernel killed inside these groups because of their memory limit."""
    for group in groups:
        for file in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                fields = dict(line.split() for line in (Path(group) / file).read_text().splitlines())
                return int(fields.get("oom_kill", "0"))
    return 0


def remove(groups: Sequence[str]) -> bool:
    """Whether all of them are gone now; a group with a process in it stays."""
    for group in groups:
        with contextlib.suppress(OSError):
            Path(group).rmdir()
    return not any(Path(g).exists() for g in groups)


def _own_v1(controller: str) -> Path:
    """Our own group; the mounted root when our path is one of another namespace."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            own = _ROOT / controller / path.lstrip("/")
            return own if own.is_dir() else _ROOT / controller
    raise OSError(f"no control group for {controller}")


def _parent_v2(controllers: list[str]) -> Path:
    """The nearest group, from ours upwards, that passes the controllers on to its children or can be made to."""
    path = next(p for p in Path("/proc/self/cgroup").read_text().splitlines() if p.startswith("0::"))[3:]
    own = _ROOT / path.lstrip("/")
    for group in [own, *own.parents]:
        if not group.is_relative_to(_ROOT) or not group.is_dir():
            continue
        passed = (group / "cgroup.subtree_control").read_text().split()
        missing = [f"+{c}" for c in controllers if c not in passed]
        try:
            if missing:  # refused (EBUSY) where processes live, except at the root
                (group / "cgroup.subtree_control").write_text(" ".join(missing))
        except OSError:
            continue
        if os.access(group, os.W_OK):
            return group
    raise OSError("no control group passes memory and cpu on to us")
