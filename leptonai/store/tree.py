"""Model folders as content: what belongs to a tree, its manifest and digest, and its one tar spelling.

Loads no SQLite: the client packs with it too.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from leptonai.errors import NotFound, SpecError
from leptonai.types import Noun, canonical

IGNORED = frozenset({"__pycache__", ".git", ".hg", ".venv"})  # made by tools beside the model, never part of it
CHUNK = 1 << 20


class Entry(Noun, frozen=True, kw_only=True, array_like=True):
    """One file of a tree; ``path`` is relative, with ``/`` between its parts."""

    path: str
    size: int
    sha256: str


def manifest_bytes(entries: list[Entry]) -> bytes:
    """The canonical manifest: entries ordered by path. Times and modes are no part of it."""
    return canonical(sorted(entries, key=lambda e: e.path))


def digest_of(manifest: bytes) -> str:
    return "sha256:" + hashlib.sha256(manifest).hexdigest()


def files_of(path: str | os.PathLike[str]) -> dict[str, Path]:
    """The files of the tree at ``path`` by relative path, in order.

    A folder: every file below it but IGNORED folders; links to files are followed, so the content counts. A single
    file: itself, and its golden examples ``<stem>.golden.json`` when they lie next to it. Raises NotFound; SpecError
    for an empty tree, a linked folder, something that is no file, or a name that is not Unicode.
    """
    root = Path(path)
    if root.is_file():
        golden = root.with_name(root.stem + ".golden.json")
        found = {p.name: p for p in (root, golden) if p.is_file()}
    elif root.is_dir():
        found = {p.relative_to(root).as_posix(): p for p in _walk(root)}
    else:
        raise NotFound(f"no model file or folder at {root}", hint="give the path of a model file or of its folder")
    if not found:
        raise SpecError(f"the folder {root} holds no file", hint="give the folder that holds the model")
    for name in found:
        if not name.isprintable():
            raise SpecError(f"the file name {name!a} under {root} is not plain text", hint="rename the file")
    return dict(sorted(found.items()))


def _walk(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as scan:
        entries = list(scan)
    for entry in entries:
        if entry.is_file():
            yield Path(entry.path)
        elif entry.is_dir(follow_symlinks=False):
            if entry.name not in IGNORED:
                yield from _walk(Path(entry.path))
        else:
            raise SpecError(
                f"{entry.path} is neither a file nor a folder (a linked folder, a broken link, a socket ...)",
                hint="copy what it points to into the model's folder",
            )


def chunks_of(file: Path) -> Iterator[bytes]:
    with file.open("rb") as f:
        while chunk := f.read(CHUNK):
            yield chunk


def entry_of(name: str, file: Path) -> Entry:
    """Read ``file`` to the end; its size and hash are of the same bytes."""
    size, sha = 0, hashlib.sha256()
    for chunk in chunks_of(file):
        size += len(chunk)
        sha.update(chunk)
    return Entry(path=name, size=size, sha256=sha.hexdigest())


def tree_digest(path: str | os.PathLike[str]) -> str:
    """The digest that ``Artifacts.put_tree`` or ``put_tar(pack(path))`` would give, without storing anything."""
    return digest_of(manifest_bytes([entry_of(name, file) for name, file in files_of(path).items()]))


def pack(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The tree at ``path`` as a tar stream, in chunks: equal trees give equal bytes, whatever their times and modes.

    Raises as ``files_of``, at once; SpecError in the middle when a file changes its size while being read.
    """
    files = files_of(path)
    return _tar(files)


def _tar(files: dict[str, Path]) -> Iterator[bytes]:
    for name, file in files.items():
        with file.open("rb") as f:
            info = tarfile.TarInfo(name)
            info.size, info.mode = os.fstat(f.fileno()).st_size, 0o644
            yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
            left = info.size
            while left and (chunk := f.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk
            if left or f.read(1):
                raise SpecError(f"{file} changed while it was read", hint="let the writer finish, then try again")
        yield b"\0" * (-info.size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)
