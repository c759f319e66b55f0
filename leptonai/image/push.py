"""An archive into a registry: every blob once, then the manifest under its tag."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from leptonai.errors import NotFound, SpecError
from leptonai.image.layer import CHUNK, disk
from leptonai.image.registry import Reference, Registry


class Pushed(NamedTuple):
    """``digest`` of the manifest; ``sent`` and ``there``: bytes that went over the wire, and that need not."""

    digest: str
    sent: int
    there: int


def push(
    archive: Path,
    target: Reference,
    registry: Registry,
    *,
    image: str = "",
    mount: str = "",
    say: Callable[[str], object],
) -> Pushed:
    """The image of ``archive`` is ``target`` afterwards. ``image``: its name there, needed when there are several.

    ``mount``: another repository of the registry that may hold the layers already. Pushing again is cheap and changes
    nothing. SpecError for an archive that is none or damaged, and what ``Registry`` raises.
    """
    with disk(f"the archive {archive}"):
        if not archive.is_file():
            raise NotFound(f"no archive {archive}", hint="`leptonai build SERVICE -o FILE.tar` writes one")
        try:
            with tarfile.open(archive) as tar, tempfile.TemporaryDirectory(prefix="leptonai-push-") as scratch:
                return _push(tar, archive, target, registry, image, mount, Path(scratch), say)
        except (tarfile.TarError, KeyError, ValueError, TypeError, EOFError) as e:
            raise SpecError(f"{archive} is no whole OCI archive: {e!r}", hint="build it again") from e


def _push(
    tar: tarfile.TarFile,
    archive: Path,
    target: Reference,
    registry: Registry,
    image: str,
    mount: str,
    scratch: Path,
    say: Callable[[str], object],
) -> Pushed:
    index = json.loads(_bytes(tar, "index.json"))["manifests"]
    chosen = _choose(index, image, archive)
    manifest = _bytes(tar, _place(chosen["digest"]))
    _same(hashlib.sha256(manifest).hexdigest(), chosen["digest"], archive)
    described = json.loads(manifest)
    sent = there = 0
    for part in [*described["layers"], described["config"]]:
        digest, size = part["digest"], part["size"]
        if registry.has(target.repository, digest) or (mount and registry.mount(target.repository, digest, mount)):
            there += size
            continue
        say(f"{digest[:19]} {size / 1e6:.1f} MB")
        registry.upload(target.repository, digest, _unpacked(tar, digest, scratch, archive))
        sent += size
    got = registry.tag(target.repository, target.tag, chosen["mediaType"], manifest)
    if got and got != chosen["digest"]:
        raise SpecError(
            f"the registry calls the image {got}, and it is {chosen['digest']}", hint="something rewrites it"
        )
    return Pushed(chosen["digest"], sent, there)


def _choose(index: list[dict[str, Any]], image: str, archive: Path) -> dict[str, Any]:
    names = [m.get("annotations", {}).get("io.containerd.image.name", "") for m in index]
    fit = [m for m, name in zip(index, names, strict=True) if not image or name == image]
    if len(fit) != 1:
        what = f"has no image {image}" if image else f"holds {len(index)} images"
        raise SpecError(f"{archive} {what}", hint=f"say which with --image: {', '.join(names)}")
    return fit[0]


def _unpacked(tar: tarfile.TarFile, digest: str, scratch: Path, archive: Path) -> Path:
    path, sha = scratch / "blob", hashlib.sha256()
    source = tar.extractfile(_place(digest))
    assert source is not None
    with path.open("wb") as f:
        while chunk := source.read(CHUNK):
            sha.update(chunk)
            f.write(chunk)
    _same(sha.hexdigest(), digest, archive)
    return path


def _same(got: str, digest: str, archive: Path) -> None:
    if digest != f"sha256:{got}":
        raise SpecError(f"{archive} is damaged: {digest} holds sha256:{got}", hint="build it again")


def _bytes(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file")
    return file.read()


def _place(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def login(host: str) -> tuple[str, str]:
    """Name and password for ``host``: REGISTRY_USER and REGISTRY_PASSWORD, else what `docker login` keeps; or empty."""
    user = os.environ.get("REGISTRY_USER", "")
    if user:
        return user, os.environ.get("REGISTRY_PASSWORD", "")
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        kept = json.loads((folder / "config.json").read_text())["auths"][host]["auth"]
        name, _, password = base64.b64decode(kept).decode().partition(":")
        return name, password
    return "", ""
