"""Models by content: what a revision names is loaded again after a restart or a rollback, byte for byte.

On disk: ``<folder>/<hex>/manifest.json`` (its sha256 is the digest) and ``<folder>/<hex>/files/`` (the tree).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import msgspec

from leptonai.errors import LeptonError, ModelError, NotFound, SpecError
from leptonai.store.tree import CHUNK, Entry, chunks_of, digest_of, entry_of, files_of, manifest_bytes
from leptonai.store.untar import members
from leptonai.types import DIGEST


class Artifacts:
    """Content-addressed trees under ``folder``. Files are readable by every user and writable by none.

    Any number of processes may put, read and collect at once. Errors of the disk are LeptonErrors; a put that fails
    leaves nothing behind, and one that is killed leaves a folder that the next ``collect`` removes.
    """

    def __init__(self, folder: str | os.PathLike[str], *, max_bytes: int = 64 << 30, max_files: int = 100_000) -> None:
        """Create ``folder`` when missing. ``max_bytes``, ``max_files``: limits of one tree."""
        self.folder = Path(folder)
        self._max_bytes = max_bytes
        self._max_files = max_files
        with self._words():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o755)  # replicas of another uid read below it, whatever the umask

    def put_tree(self, path: str | os.PathLike[str]) -> str:
        """Copy the model at ``path`` (see ``tree.files_of`` for what belongs to it) and return its digest."""
        files = files_of(path)
        if len(files) > self._max_files:
            raise SpecError(
                f"{path} holds {len(files)} files; the limit is {self._max_files}", hint="name the model's folder"
            )

        return self._put((name, chunks_of(file)) for name, file in files.items())

    def put_tar(self, stream: Iterable[bytes] | IO[bytes]) -> str:
        """Store the tree of a plain tar, given as chunks or as a binary file, and return its digest.

        Nothing outside the new artifact is ever written; SpecError says what is wrong with the archive.
        """
        if not isinstance(stream, Iterable) or hasattr(stream, "read"):
            stream = iter(partial(stream.read, CHUNK), b"")
        return self._put(members(stream, self._max_files))

    def path(self, digest: str) -> Path:
        """The read-only folder with the tree's files. Raises NotFound; SpecError when ``digest`` is none."""
        files = self._home(digest) / "files"
        if not files.is_dir():
            raise NotFound(
                f"no artifact {digest}",
                hint="upload the model again (leptonai deploy): equal bytes get the same digest",
            )
        return files

    def verify(self, digest: str) -> None:
        """Read every byte again. Raises ModelError ``artifact_changed`` naming the first file that differs."""
        files = self.path(digest)
        with self._words():
            try:
                manifest = (files.parent / "manifest.json").read_bytes()
            except FileNotFoundError:
                manifest = b""
            if digest_of(manifest) != digest:
                raise _changed(digest, "manifest.json", digest, digest_of(manifest))
            expected = {e.path: e for e in msgspec.json.decode(manifest, type=list[Entry])}
            found = {p.relative_to(files).as_posix(): p for p in files.rglob("*") if p.is_symlink() or not p.is_dir()}
            for name in sorted(expected.keys() | found.keys()):
                if name not in found:
                    raise _changed(digest, name, expected[name].sha256, "no such file")
                if name not in expected:
                    raise _changed(digest, name, "no such file", "a file")
                if found[name].is_symlink() or not found[name].is_file():
                    raise _changed(digest, name, expected[name].sha256, "no plain file")
                entry = entry_of(name, found[name])
                if entry != expected[name]:
                    raise _changed(digest, name, expected[name].sha256, entry.sha256)

    def digests(self) -> list[str]:
        """Every stored digest, in order."""
        with self._words():
            return sorted(f"sha256:{p.name}" for p in self.folder.iterdir() if DIGEST.fullmatch(f"sha256:{p.name}"))

    def collect(self, keep: set[str], *, before: float) -> list[str]:
        """Remove artifacts not in ``keep`` and last put before ``before``; returns their digests in order.

        ``keep``: what any kept revision or pending proposal names. ``before`` (unix seconds) spares uploads whose
        proposal is still to come. Folders left by killed puts go too.
        """
        removed = []
        with self._words():
            with self._exclusive():
                for digest in self.digests():
                    home = self._home(digest)
                    if digest not in keep and home.stat().st_mtime < before:
                        home.rename(self._scratch())
                        removed.append(digest)
                for scratch in self.folder.glob(".new-*"):
                    with _held(scratch) as held:
                        if held:
                            _remove(scratch)
        return removed

    # --- writing ---------------------------------------------------------------------------------------------------

    def _put(self, sources: Iterable[tuple[str, Iterable[bytes]]]) -> str:
        with self._words():
            with ExitStack() as stack:
                with self._exclusive():  # between these two a collect would take it for a dead writer's
                    scratch = self._scratch()
                    scratch.mkdir(mode=0o755)
                    stack.enter_context(_held(scratch))
                try:
                    entries = self._copy(sources, scratch / "files")
                    manifest = manifest_bytes(entries)
                    _write(scratch / "manifest.json", lambda f: f.write(manifest))
                    _seal(scratch)
                    return self._commit(scratch, digest_of(manifest))
                finally:
                    if scratch.exists():
                        _remove(scratch)

    def _copy(self, sources: Iterable[tuple[str, Iterable[bytes]]], files: Path) -> list[Entry]:
        entries, total = [], 0
        for name, chunks in sources:
            target = files / name
            size, sha = 0, hashlib.sha256()
            try:
                target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                with target.open("xb") as f:
                    for chunk in chunks:
                        size += len(chunk)
                        if total + size > self._max_bytes:
                            raise SpecError(
                                f"the model holds more than {self._max_bytes} bytes",
                                hint="upload the model's files only",
                            )
                        sha.update(chunk)
                        f.write(chunk)
                    f.flush()
                    os.fsync(f.fileno())
            except OSError as e:
                if e.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
                    raise SpecError(
                        f"the file name {name!a} cannot be used: {e.strerror}", hint="rename the file"
                    ) from e
                raise
            total += size
            entries.append(Entry(path=name, size=size, sha256=sha.hexdigest()))
        if not entries:
            raise SpecError("the model holds no file", hint="upload the folder that holds the model")
        return entries

    def _commit(self, scratch: Path, digest: str) -> str:
        home = self._home(digest)
        with self._exclusive():
            if home.exists():
                try:
                    self.verify(digest)
                    os.utime(home)  # it counts as put now: a collect spares it
                    return digest
                except ModelError:  # damaged since: putting it again repairs it
                    home.rename(self._scratch())
            scratch.rename(home)
            _sync(self.folder)
        return digest

    def _home(self, digest: str) -> Path:
        if not DIGEST.fullmatch(digest):
            raise SpecError(f"{digest!r} is not a digest", hint='a digest is "sha256:" and 64 hex digits')
        return self.folder / digest.removeprefix("sha256:")

    def _scratch(self) -> Path:
        return self.folder / f".new-{secrets.token_hex(8)}"

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            full = e.errno in (errno.ENOSPC, errno.EDQUOT)
            raise LeptonError(
                f"the disk of {self.folder} is full: nothing was stored"
                if full
                else f"artifact store {self.folder}: {e}",
                hint=f"free space under {self.folder.parent}, then try again" if full else "check its owner and mode",
                code="disk_full" if full else "artifact_store",
                status=507 if full else 500,
                retry=full,
            ) from e


def _changed(digest: str, name: str, expected: str, found: str) -> ModelError:
    return ModelError(
        f"artifact {digest} was changed on disk: {name} should be {expected} but is {found}",
        hint="deploy the model again: putting the same bytes repairs the artifact",
        code="artifact_changed",
        file=name,
        expected=expected,
        found=found,
    )


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock, which dies with the process; False when somebody else holds it, or it is gone."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield folder.exists()  # its holder may have removed it after we opened it, and then let go
    finally:
        os.close(fd)


def _write(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    with path.open("xb") as f:
        fill(f)
        f.flush()
        os.fsync(f.fileno())


def _seal(scratch: Path) -> None:
    """Make every file 0444 and every folder below 0555, whatever the umask, and sync the folders."""
    for folder, _, files in os.walk(scratch, topdown=False):
        for name in files:
            Path(folder, name).chmod(0o444)
        _sync(Path(folder))
        Path(folder).chmod(0o755 if Path(folder) == scratch else 0o555)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(tree: Path) -> None:
    for folder, _, _ in os.walk(tree):
        Path(folder).chmod(0o755)  # only root may empty a read-only folder
    shutil.rmtree(tree)
