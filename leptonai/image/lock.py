"""Locks: exactly what an image is made of, so that it can be made again.

Ours is the JSON that ``leptonai build`` writes; pip's is a text of requirements with ``--hash=sha256:...``, as
pip-compile and uv write it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec

from leptonai.errors import NotFound, SpecError
from leptonai.image.base import Base, Package, Python
from leptonai.image.distributions import OURS, Distribution, installed, normal, wheel
from leptonai.types import Noun

_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?\s*==\s*([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_PLATFORMS = [f"manylinux_2_{n}" for n in range(36, 4, -1)] + ["manylinux2014", "manylinux2010", "manylinux1", "linux"]


class Debian(Noun, frozen=True, kw_only=True):
    name: str
    version: str
    architecture: str
    sha256: str


class Locked(Noun, frozen=True, kw_only=True):
    """``sha256`` of the wheel when ``wheel`` names one, else of the files as they were installed."""

    name: str
    version: str
    sha256: str
    wheel: str = ""


class Lock(Noun, frozen=True, kw_only=True):
    lock: int = 1
    debian: tuple[Debian, ...] = ()
    python: tuple[Locked, ...] = ()


def of(base: Base, distributions: list[Distribution]) -> Lock:
    return Lock(
        debian=tuple(
            Debian(name=p.name, version=p.version, architecture=p.architecture, sha256=p.sha256) for p in base.packages
        ),
        python=tuple(
            Locked(name=d.name, version=d.version, sha256=d.sha256, wheel=d.wheel)
            for d in sorted(distributions, key=lambda d: d.name)
        ),
    )


def read(path: Path) -> Lock | str:
    """A lock of ours, or the text of pip's. SpecError when it is neither."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise SpecError(f"cannot read the lock {path}: {e}", hint="give the file that `leptonai build` wrote") from e
    if text.lstrip().startswith("{"):
        try:
            return msgspec.json.decode(text, type=Lock)
        except msgspec.DecodeError as e:
            raise SpecError(f"{path} is no lock: {e}", hint="give the file that `leptonai build` wrote") from e
    for line in requirements(text):
        if not _NAME.match(line) or not _HASH.search(line):
            raise SpecError(
                f"{path}: {line.split(' --hash')[0]!r} is not name==version with --hash=sha256:...",
                hint="`uv pip compile --generate-hashes` and `pip-compile --generate-hashes` write such a lock",
            )
    return text


def requirements(text: str) -> list[str]:
    """The requirements in a text of pip's, one a line, without comments and options."""
    joined = re.sub(r"\\\s*\n", " ", text)
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines()]
    return [line for line in lines if line and not line.startswith("-")]


def packages(lock: Lock | str | None) -> list[Package]:
    if not isinstance(lock, Lock):
        return []
    return [Package(d.name, d.version, d.sha256, d.architecture) for d in lock.debian]


def environment(lock: Lock | str, python: Python, folder: Path) -> list[Distribution]:
    """What ``lock`` names, and this package. NotFound for a wheel nobody has, SpecError for one of another digest."""
    if isinstance(lock, str):
        text = "\n".join(r for r in requirements(lock) if normal(_name(r)) != OURS)
        return [*_wheels(text, python, folder), installed(OURS, python)]
    text = "\n".join(f"{x.name}=={x.version} --hash=sha256:{x.sha256}" for x in lock.python if x.wheel)
    found = _wheels(text, python, folder) if text else []
    for wanted in (x for x in lock.python if not x.wheel):
        here = installed(wanted.name, python)
        if (here.version, here.sha256) != (wanted.version, wanted.sha256):
            what = here.version if here.version != wanted.version else f"{here.version} with other files"
            raise SpecError(
                f"the lock wants {wanted.name} {wanted.version}, and installed here is {what}",
                hint="install what the lock names, or lock anew by building without --lock",
                code="lock_mismatch",
            )
        found.append(here)
    return sorted(found, key=lambda d: d.name)


def _name(requirement: str) -> str:
    match = _NAME.match(requirement)
    assert match is not None
    return match[1]


def _wheels(text: str, python: Python, folder: Path) -> list[Distribution]:
    """The wheels of a text of requirements, by pip, which refuses what has another digest."""
    listed, got = folder / "requirements.txt", folder / "wheels"
    listed.write_text(text)
    machine = {"amd64": "x86_64", "arm64": "aarch64"}[python.machine]
    platforms = [f"--platform={p}_{machine}" for p in _PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-input", "--no-deps", "--require-hashes"]
    target = ["--only-binary=:all:", f"--python-version=3.{python.minor}", "--implementation=cp"]
    target += [f"--abi=cp3{python.minor}", "--abi=abi3", "--abi=none", *platforms]
    done = subprocess.run(
        [*command, *target, "-d", str(got), "-r", str(listed)], capture_output=True, text=True, env=os.environ
    )
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.strip()]
        said = next((e.removeprefix("ERROR: ") for e in reversed(errors) if e.startswith("ERROR")), "pip says nothing")
        mismatch = "HASH" in done.stderr or "MATCH THE HASHES" in done.stderr
        if mismatch:
            raise SpecError(
                f"a wheel is not the one that the lock names: {' '.join(e.strip() for e in errors[-4:])}",
                hint="the index holds another file, or the lock was edited: lock anew",
                code="lock_mismatch",
            )
        raise NotFound(
            f"no wheel for what the lock names: {said}",
            hint="is the index reachable, and has it wheels for the base's Python? source archives are not built",
        )
    unpacked = folder / "unpacked"
    return [wheel(path, python, unpacked) for path in sorted(got.glob("*.whl"))]
