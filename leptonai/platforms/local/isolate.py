"""What a replica may see and be: which user, which folders, which limits. Deciding here, doing in ``launch``."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import leptonai
from leptonai.platforms.local import launch
from leptonai.types import Key, Noun

UIDS = range(61184, 62000)  # inside the range systemd reserves for users made on the fly (61184..65519)
LAUNCHER = (sys.executable, "-I", "-S", launch.__file__)


class Keep(Noun, frozen=True, kw_only=True):
    """A folder that stays visible."""

    path: str
    write: bool = False


class Isolation(Noun, frozen=True, kw_only=True):
    """Run as ``uid`` (and the group of the same number), each of ``covers`` hidden but for the ``keeps`` below it."""

    uid: int
    covers: tuple[str, ...]
    keeps: tuple[Keep, ...]


class Order(Noun, frozen=True, kw_only=True):
    """What ``launch`` is told on stdin."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    isolation: Isolation | None


def uid_of(service: Key, taken: Mapping[int, Key]) -> int:
    """The user of a service: always the same one unless another service has it, then the next free one."""
    at = zlib.crc32(service.encode()) % len(UIDS)
    for step in range(len(UIDS)):
        uid = UIDS[(at + step) % len(UIDS)]
        if taken.get(uid, service) == service:
            return uid
    return UIDS[at]  # more services than users: two share one


def enterable(folder: str) -> bool:
    """True when any user may pass through ``folder``."""
    return bool(Path(folder).stat().st_mode & 0o001)


def covers(keeps: Iterable[str], always: str, passable: Callable[[str], bool] = enterable) -> tuple[str, ...]:
    """The folders to cover so that ``keeps`` can be reached by a stranger and nothing else of ``always`` can.

    Per kept path the outermost folder above it that a stranger may not pass; outer ones first.
    """
    found = {always}
    for keep in keeps:
        for spelling in {keep, os.path.realpath(keep)}:
            above = [str(p) for p in reversed(Path(spelling).parents) if str(p) != "/"]
            blocked = next((p for p in above if not passable(p)), None)
            if blocked:
                found.add(os.path.realpath(blocked))
    return tuple(sorted(found, key=lambda p: (p.count("/"), p)))


@functools.cache
def interpreter_folders(python: str) -> tuple[str, ...]:
    """Every folder this interpreter imports from: its prefixes and its path. Cached: they do not move."""
    code = "import sys, json; print(json.dumps([sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path]))"
    done = subprocess.run([python, "-P", "-c", code], capture_output=True, text=True, timeout=30, check=True)
    return tuple(sorted({p for p in json.loads(done.stdout) if p and Path(p).is_dir()}))


def isolation(uid: int, home: Path, python: str, read: Iterable[str], write: Iterable[str]) -> Isolation:
    """The walls of one replica: it sees its interpreter, our package, ``read`` and ``write``; nothing else of home."""
    package = str(Path(leptonai.__file__).parent)
    spelled = [*interpreter_folders(python), package, *read]
    seen = dict.fromkeys(p for spelling in spelled for p in (spelling, os.path.realpath(spelling)))
    keeps = [Keep(path=p) for p in seen] + [Keep(path=p, write=True) for p in write]
    keeps.sort(key=lambda keep: keep.path.count("/"))
    return Isolation(uid=uid, covers=covers([k.path for k in keeps], str(home.resolve())), keeps=tuple(keeps))


def environment(home: str, env: Mapping[str, str], threads: int) -> dict[str, str]:
    """All that a replica gets: nothing of ours (no LEPTONAI_*, no tokens), then what its variant declares."""
    base = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": home, "LANG": "C.UTF-8"}
    base |= {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(threads)}
    return base | {k: v for k, v in env.items() if not k.startswith("LEPTONAI_")}


def refusal(home: Path, probe: Path) -> str:
    """Why replicas cannot be isolated here; "" when they can. Tried for real: our package imported behind the walls."""
    if os.geteuid() != 0:
        return "not running as root: replicas run as the same user as the platform"
    walls = isolation(UIDS[0], home, sys.executable, [], [str(probe)])
    argv = (sys.executable, "-P", "-c", "import leptonai.runtime, numpy, msgspec")
    order = {"argv": argv, "env": environment(str(probe), {}, 1), "cwd": str(probe), "isolation": as_dict(walls)}
    try:
        done = subprocess.run(LAUNCHER, input=json.dumps(order), capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as e:
        return f"the launcher does not run: {e}"
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def as_dict(walls: Isolation) -> dict[str, Any]:
    return {
        "uid": walls.uid,
        "covers": list(walls.covers),
        "keeps": [{"path": k.path, "write": k.write} for k in walls.keeps],
    }
