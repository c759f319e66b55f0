"""What an image stands on: a root file system with a Python, given as a folder, a tar, or an OCI archive."""

from __future__ import annotations

import json
import os
import re
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from leptonai.errors import SpecError
from leptonai.image.layer import CHUNK, Blob, Item, compress, layer

# Where a Python lies, the most wanted first: what an administrator installed goes before what the system came with.
_PYTHON = [re.compile(rf"{place}/python3\.(\d+)") for place in (r"usr/local/bin", r"usr/bin", r"bin", r"opt/[^/]+/bin")]
_MACHINES = {62: "amd64", 183: "arm64"}  # e_machine of ELF, as an image's architecture is called
_HINT = "give --base: a folder or a tar with a root file system, an OCI archive, or `debian`"


class Python(NamedTuple):
    path: str  # in the image, absolute
    minor: int  # of 3.minor
    machine: str  # as images call it: amd64, arm64


class Package(NamedTuple):
    """What a base is made of, as far as it is known."""

    name: str
    version: str
    sha256: str
    architecture: str
    license: str = ""


class Base(NamedTuple):
    layers: tuple[Blob, ...]
    python: Python
    environment: dict[str, str]
    packages: tuple[Package, ...] = ()
    about: str = ""


def read(source: str, folder: Path) -> Base:
    """The base at ``source``, its layers in ``folder``. SpecError when it is none, or has no Python for Linux."""
    path = Path(source)
    if path.is_dir():
        return from_items(walk(path), folder, str(path))
    if not path.is_file():
        raise SpecError(f"no base {source}: no such file or folder", hint=_HINT)
    try:
        with tarfile.open(path) as tar:
            if "index.json" in tar.getnames():
                return _from_archive(tar, folder, path)
            python = find((m.name, _start(tar, m)) for m in tar if m.isreg())
    except (tarfile.TarError, EOFError, OSError) as e:
        raise SpecError(f"{source} is no tar of a root file system: {e}", hint=_HINT) from e
    if python is None:
        raise _no_python(source)
    return Base((compress(_plain(path), folder),), python, {}, (), str(path))


def from_items(items: Iterable[Item], folder: Path, about: str, packages: tuple[Package, ...] = ()) -> Base:
    items = list(items)
    python = find((i.path, _head(i.content)) for i in items if i.content is not None)
    if python is None:
        raise _no_python(about)
    return Base((layer(items, folder),), python, {}, packages, about)


def find(files: Iterable[tuple[str, bytes]]) -> Python | None:
    """The Python among ``files``, each a path and the file's first 20 bytes: the newest of the most wanted place."""
    best: tuple[int, int, Python] | None = None
    for name, head in files:
        path = name.removeprefix("./").lstrip("/")
        for rank, pattern in enumerate(_PYTHON):
            match = pattern.fullmatch(path)
            if match and head[:4] == b"\x7fELF" and len(head) >= 20:
                machine = _MACHINES.get(int.from_bytes(head[18:20], "little"))
                if machine is not None:
                    found = (-rank, int(match[1]), Python("/" + path, int(match[1]), machine))
                    best = found if best is None else max(best, found)
    return best[2] if best else None


def walk(root: Path) -> Iterator[Item]:
    """The tree below ``root`` with its modes and owners. Sockets, pipes and devices are no part of an image."""
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(folder, name)
            status = path.lstat()
            place, mode = path.relative_to(root).as_posix(), stat.S_IMODE(status.st_mode)
            owner = (status.st_uid, status.st_gid)
            if path.is_symlink():
                yield Item(place, link=str(path.readlink()), owner=owner)
            elif stat.S_ISDIR(status.st_mode):
                yield Item(place, None, mode, "", owner)
            elif stat.S_ISREG(status.st_mode):
                yield Item(place, path, mode, "", owner)


def _from_archive(tar: tarfile.TarFile, folder: Path, path: Path) -> Base:
    """An OCI image as the base: its layers stay byte for byte as they are."""

    def document(name: str) -> Any:
        member = tar.extractfile(name)
        assert member is not None
        return json.load(member)

    def place(digest: str) -> str:
        return f"blobs/{digest.replace(':', '/')}"

    try:
        manifest = document(place(document("index.json")["manifests"][0]["digest"]))
        if "manifests" in manifest:  # an index of several machines
            manifest = document(place(_ours(manifest["manifests"])["digest"]))
        config = document(place(manifest["config"]["digest"]))
        python, blobs = None, []
        for described, diff in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
            stored = folder / described["digest"].removeprefix("sha256:")
            with stored.open("wb") as f:
                source = tar.extractfile(place(described["digest"]))
                assert source is not None
                while chunk := source.read(CHUNK):
                    f.write(chunk)
            blobs.append(Blob(described["digest"], described["size"], stored, described["mediaType"], diff))
            with tarfile.open(stored) as inner:
                python = find((m.name, _start(inner, m)) for m in inner if m.isreg()) or python
    except (KeyError, IndexError, TypeError, ValueError, AssertionError) as e:
        raise SpecError(
            f"{path} is no whole OCI archive: {e!r}", hint="write it with `skopeo copy ... oci-archive:`"
        ) from e
    if python is None:
        raise _no_python(str(path))
    given = dict(pair.partition("=")[::2] for pair in config.get("config", {}).get("Env", []))
    return Base(tuple(blobs), python, given, (), str(path))


def _ours(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    fit = [m for m in manifests if m.get("platform", {}).get("architecture") == machine]
    return (fit or manifests)[0]


def _start(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if "/python3." not in member.name:
        return b""
    file = tar.extractfile(member)
    return file.read(20) if file else b""


def _head(content: bytes | Path | None) -> bytes:
    if isinstance(content, Path):
        if "python3." not in content.name:
            return b""
        with content.open("rb") as f:
            return f.read(20)
    return (content or b"")[:20]


def _plain(path: Path) -> Iterator[bytes]:
    """The bytes of a tar without what compresses it."""
    import bz2
    import gzip
    import lzma

    with path.open("rb") as f:
        magic = f.read(6)
    openers: list[tuple[bytes, Any]] = [(b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open)]
    opener = next((o for start, o in openers if magic.startswith(start)), open)
    with opener(path, "rb") as f:
        while chunk := f.read(CHUNK):
            yield chunk


def _no_python(source: str) -> SpecError:
    return SpecError(
        f"the base {source} has no Python: no program python3.N in /usr/local/bin, /usr/bin, /bin or /opt/*/bin",
        hint=_HINT,
    )
