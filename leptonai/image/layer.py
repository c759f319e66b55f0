"""Layers: trees of files as compressed tar archives. Equal names and contents give equal bytes, whenever and wherever.

An archive depends on no clock, user, umask or order of a folder: entries are sorted, times are 0. The compressed bytes
depend on zlib's version besides; ``Blob.diff``, the digest before compression, does not.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from leptonai.errors import PlatformError, SpecError

CHUNK = 1 << 20
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_LEVEL = 4  # half the time of 6 for 4 % more bytes: measured on the base and on the environment of an ONNX model
_GZIP = 31  # zlib's window bits for a gzip header, which then holds no time and no name


class Item(NamedTuple):
    """One file of a layer: ``content`` is its bytes or where they lie, None for a folder; ``link``: a symbolic link."""

    path: str  # from the root, without a slash in front
    content: bytes | Path | None = None
    mode: int = 0o644
    link: str = ""
    owner: tuple[int, int] = (0, 0)


class Blob(NamedTuple):
    """Bytes by content, at ``path`` on this machine. ``diff``: of a layer, the digest of its plain tar."""

    digest: str
    size: int
    path: Path
    media: str
    diff: str = ""


class _Hashed:
    """Writes to ``out`` and knows the digest and the size of what was written."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out, self._sha, self.size = out, hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self._out.write(data)
        self._sha.update(data)
        self.size += len(data)

    @property
    def digest(self) -> str:
        return "sha256:" + self._sha.hexdigest()


def layer(items: Iterable[Item], folder: Path) -> Blob:
    """``items`` as a layer in ``folder``; folders that lead to them are added, mode 0755 of root.

    SpecError when two items have one path and differ, or a file changes while it is read.
    """
    return compress(_tar(_whole(items)), folder)


def compress(chunks: Iterable[bytes], folder: Path) -> Blob:
    """A plain tar, in chunks, as a layer in ``folder``."""
    plain = hashlib.sha256()
    part = folder / ".layer.part"
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    with part.open("wb") as f:
        out = _Hashed(f)
        for chunk in chunks:
            plain.update(chunk)
            out.write(packer.compress(chunk))
        out.write(packer.flush())
    path = folder / out.digest.removeprefix("sha256:")
    part.replace(path)
    return Blob(out.digest, out.size, path, LAYER, "sha256:" + plain.hexdigest())


def blob(content: bytes, media: str, folder: Path) -> Blob:
    digest = hashlib.sha256(content).hexdigest()
    path = folder / digest
    path.write_bytes(content)
    return Blob("sha256:" + digest, len(content), path, media)


def _whole(items: Iterable[Item]) -> list[Item]:
    found: dict[str, Item] = {}
    for item in items:
        other = found.setdefault(item.path, item)
        if other != item and not (other.content is None and item.content is None and other.link == item.link):
            raise SpecError(
                f"two sources bring /{item.path} into one layer",
                hint="two distributions claim it: leave one of them out",
            )
    for path in list(found):
        parent = path.rpartition("/")[0]
        while parent and parent not in found:
            found[parent] = Item(parent, mode=0o755)
            parent = parent.rpartition("/")[0]
    return [found[path] for path in sorted(found, key=lambda p: p.split("/"))]


def _tar(items: Iterable[Item]) -> Iterator[bytes]:
    for item in items:
        info = tarfile.TarInfo(item.path)
        info.mode, (info.uid, info.gid) = item.mode, item.owner
        if item.link:
            info.type, info.linkname, info.mode = tarfile.SYMTYPE, item.link, 0o777
            yield _header(info)
        elif item.content is None:
            info.type = tarfile.DIRTYPE
            yield _header(info)
        elif isinstance(item.content, bytes):
            info.size = len(item.content)
            yield _header(info) + item.content + _padding(info.size)
        else:
            with item.content.open("rb") as f:
                info.size = os.fstat(f.fileno()).st_size
                yield _header(info)
                left = info.size
                while left and (chunk := f.read(min(CHUNK, left))):
                    left -= len(chunk)
                    yield chunk
                if left or f.read(1):
                    raise SpecError(
                        f"{item.content} changed while it was read", hint="let the writer finish, then build again"
                    )
            yield _padding(info.size)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padding(size: int) -> bytes:
    return b"\0" * (-size % tarfile.BLOCKSIZE)


@contextmanager
def disk(what: str) -> Iterator[None]:
    """Errors of the disk while ``what`` is read or written, in our words."""
    try:
        yield
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        where = f" ({e.filename})" if e.filename else ""
        raise (PlatformError if full else SpecError)(
            f"the disk is full: {what} was not written" if full else f"{what}{where}: {e.strerror or e}",
            hint="free space, or build to another disk with -o and TMPDIR" if full else "check the path and its rights",
            code="disk_full" if full else "image_files",
            status=507 if full else 400,
            retry=full,
        ) from e
