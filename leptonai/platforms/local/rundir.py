"""The run directory of a replica: what makes it possible for a fresh platform to adopt what an old one started."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import msgspec

from leptonai.errors import StartError
from leptonai.types import Key, Launch, Noun, Resources


class Ended(Noun, frozen=True, kw_only=True):
    """Why nothing of a replica runs any more."""

    reason: str
    detail: str
    at: float


class Record(Noun, frozen=True, kw_only=True):
    """``replica.json``: who the process is. ``pid`` and ``ticks`` are 0 when none was ever started."""

    id: str
    service: Key
    variant: str
    digest: str
    epoch: int
    attempt: int
    started: float
    socket: str
    drain: float
    resources: Resources = Resources()
    pid: int = 0
    ticks: int = 0
    boot: str = ""
    uid: int | None = None
    cgroups: tuple[str, ...] = ()
    stopping: str = ""  # why it was told to stop
    ended: Ended | None = None


def write_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """``path`` holds ``content`` after the call, also after a power cut; readers see the old or the new, never a part.

    OSError (a full disk, say) leaves the old content in force and no temporary file behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb", opener=lambda p, flags: os.open(p, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


class RunDir:
    """``<home>/run/<id>/``. Owned by the platform; the replica may add files and change those it made, no others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name
        self.log = path / "log"
        self.predictions = path / "predictions"

    def create(self, launch: Launch, uid: int | None) -> None:
        """The folder, ``launch.json`` and an empty prediction folder exist, the replica's user may use them."""
        self.path.mkdir(parents=True)
        self.predictions.mkdir()
        write_atomically(self.path / "launch.json", msgspec.json.encode(launch), 0o640)
        if uid is not None:
            # Sticky: the replica's group may create files here but not replace ours, such as replica.json.
            os.chown(self.path, 0, uid)
            self.path.chmod(0o1770)
            os.chown(self.path / "launch.json", 0, uid)
            os.chown(self.predictions, uid, uid)

    def save(self, record: Record) -> None:
        write_atomically(self.path / "replica.json", msgspec.json.encode(record))

    def load(self) -> Record | None:
        """The record, or None when the platform died before it had written one (nothing was started then)."""
        try:
            return msgspec.json.decode((self.path / "replica.json").read_bytes(), type=Record)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def failure(self) -> dict[str, Any] | None:
        """What the replica itself says about why it could not run. Written by untrusted code: read with care."""
        try:
            with open(self.path / "failure.json", "rb", opener=lambda p, f: os.open(p, f | os.O_NOFOLLOW)) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return None
                found = msgspec.json.decode(file.read(65536))
        except (OSError, msgspec.DecodeError):
            return None
        return found if isinstance(found, dict) else None

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def runtime_folder(home: Path) -> Path:
    """The short folder for this home's sockets: a Unix socket's path has 108 bytes, a home's may be longer."""
    name = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:8]
    if os.geteuid() == 0:
        return Path("/run/leptonai") / name
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base) / "leptonai" / name if base and len(base) <= 40 else Path(f"/tmp/leptonai-{os.geteuid()}") / name  # noqa: S108


def make_runtime_folder(home: Path) -> Path:
    """The folder exists, is ours, and nobody else may write to it. StartError when somebody else made it first."""
    folder = runtime_folder(home)
    while not folder.is_dir():
        folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another platform's shutdown removed the empty parent
            folder.mkdir(mode=0o711, exist_ok=True)
    for path in (folder.parent, folder):
        found = path.lstat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022 or not stat.S_ISDIR(found.st_mode):
            raise StartError(f"{path} is not a folder of ours alone", hint="remove it; it may have been planted")
    return folder


def socket_path(folder: Path, replica: str, uid: int | None) -> Path:
    """A folder of the replica's own below ``folder`` for its socket, which its user may create; returns the path."""
    own = folder / replica.rsplit("-", 1)[-1]
    own.mkdir(mode=0o700, exist_ok=True)
    if uid is not None:
        os.chown(own, uid, uid)
    return own / "s"
