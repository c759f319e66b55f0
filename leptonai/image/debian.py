"""A root file system out of Debian packages: the files of Python and of what it needs, without a shell or a packager.

No script of a package runs, so the result depends on the packages alone. apt checks the archive's signature when it
reads its lists; each package must have the digest that the lists say.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from leptonai.errors import NotFound, PlatformError, SpecError
from leptonai.image.base import Base, Package, from_items
from leptonai.image.bytecode import compiled
from leptonai.image.layer import Item

# What scripts of packages would need, and nothing in a replica does: the packager, its questions, shells, Perl.
_LEFT_OUT = re.compile(r"dpkg|debconf.*|perl.*|awk|mawk|openssl|libpam.*|mime-support|sensible-utils")
_UNREAD = re.compile(r"usr/share/(man|info|locale|lintian|bash-completion|bug|doc-base|doc/(?!.*/copyright$))")
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # links into /usr, as every Debian has since 12
_UID = 61184  # as plan.render.pod.UID
_ACCOUNTS = (
    f"root:x:0:0:root:/root:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    f"leptonai:x:{_UID}:{_UID}::/run/leptonai:/usr/sbin/nologin\n"
)
_GROUPS = f"root:x:0:\nnogroup:x:65534:\nleptonai:x:{_UID}:\n"
_FOLDERS = ("dev", "etc", "home", "opt", "proc", "root", "run", "sys", "var/tmp")


def debian(folder: Path, cache: Path, wanted: Sequence[Package] = (), more: Sequence[str] = ()) -> Base:
    """Debian's own Python on what this machine's apt offers, or on exactly the packages ``wanted``.

    ``more``: names of further packages. PlatformError where there is no apt, or it has no lists; NotFound for a
    package that it does not have (any more); SpecError when a package is not the one that was wanted.
    """
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise PlatformError(
                f"a base of Debian packages needs {tool}, which this machine does not have",
                hint="give another --base: a folder or a tar with a root file system, or an OCI archive",
            )
    packages = list(wanted) or closure(more)
    items = list(_skeleton())
    with tempfile.TemporaryDirectory() as scratch:
        for package in packages:
            items += unpack(fetch(package, cache), Path(scratch))
            items.append(_status(package))
        items += _certificates(items)
        base_python = next(i.path for i in items if re.fullmatch(r"usr/bin/python3\.\d+", i.path))
        items.append(Item("usr/bin/python3", link=Path(base_python).name))
        items += compiled([i for i in items if i.path.startswith("usr/lib/python3")], Path(base_python).name)
        return from_items(items, folder, "debian", tuple(packages))


def closure(more: Sequence[str] = ()) -> list[Package]:
    """Python and what it needs, by name, at the versions that apt would install."""
    python = re.search(r"python3\.\d+", _show(["python3-minimal"])["python3-minimal"].get("Pre-Depends", ""))
    if python is None:
        raise PlatformError("apt offers no python3-minimal that names its Python", hint="give another --base")
    roots = [f"{python[0]}-minimal", f"lib{python[0]}-stdlib", "libstdc++6", "libgcc-s1", "ca-certificates", "tzdata"]
    found: dict[str, dict[str, str]] = {}
    waiting = [*roots, "base-files", *more]
    while waiting:
        shown = _show(waiting)
        missing = sorted(set(waiting) - shown.keys())
        if missing:
            raise NotFound(
                f"apt has no package {missing[0]}", hint="is the name right? `apt-get update` renews its lists"
            )
        found |= shown
        needed = {name for fields in shown.values() for name in _needs(fields)}
        waiting = sorted(needed - found.keys())
    return [
        Package(name, fields["Version"], fields["SHA256"], fields["Architecture"])
        for name, fields in sorted(found.items())
    ]


def fetch(package: Package, cache: Path) -> Path:
    """The package's file, from ``cache`` or by apt."""
    kept = cache / f"{package.sha256}.deb"
    if kept.is_file() and _sha256(kept) == package.sha256:
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        name = f"{package.name}={package.version}"
        done = subprocess.run(
            ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", name],
            cwd=scratch,
            capture_output=True,
            text=True,
            env=os.environ | {"LC_ALL": "C"},
        )
        files = list(Path(scratch).glob("*.deb"))
        if done.returncode != 0 or len(files) != 1:
            raise NotFound(
                f"apt cannot download {name}: {_last(done.stderr)}",
                hint="is the network there? `apt-get update`; of a lock, the archive may have moved on: lock anew",
            )
        if (got := _sha256(files[0])) != package.sha256:
            raise SpecError(
                f"{name} from the archive is sha256:{got}, and sha256:{package.sha256} was wanted",
                hint="the archive holds another build: lock anew",
                code="lock_mismatch",
            )
        files[0].replace(kept)
    return kept


def unpack(deb: Path, scratch: Path) -> Iterator[Item]:
    """The files of a package but manuals and translations; hard links become copies."""
    plain = scratch / "data.tar"
    with plain.open("wb") as f:
        done = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=f, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SpecError(f"{deb.name} is no whole package: {_last(done.stderr)}", hint="remove it, then build again")
    with tarfile.open(plain) as tar:
        for member in tar:
            path = _merged(member.name.removeprefix("./"))
            if not path or path in ("usr", *_MERGED) or _UNREAD.match(path):
                continue
            if member.issym():
                yield Item(path, link=member.linkname)
            elif member.isdir():
                yield Item(path, None, member.mode)
            elif member.isreg() or member.islnk():
                file = tar.extractfile(member)
                assert file is not None
                yield Item(path, file.read(), member.mode)


def _show(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """The candidates' records by name; a name that apt does not know, or only as a virtual one, is left out."""
    done = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", *names],
        capture_output=True,
        text=True,
        env=os.environ | {"LC_ALL": "C"},
    )
    found: dict[str, dict[str, str]] = {}
    for record in done.stdout.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in record.splitlines() if ": " in line and line[0] != " ")
        if "SHA256" in fields:
            found.setdefault(fields["Package"], fields)
    if not found:
        raise PlatformError(f"apt has no lists of packages: {_last(done.stderr)}", hint="`apt-get update`, as root")
    return found


def _needs(fields: dict[str, str]) -> Iterator[str]:
    """The first alternative of every dependency that a replica needs."""
    for field in ("Pre-Depends", "Depends"):
        for alternatives in filter(None, fields.get(field, "").split(", ")):
            name = re.split(r"[ :|(]", alternatives, maxsplit=1)[0]
            if not _LEFT_OUT.fullmatch(name):
                yield name


def _skeleton() -> Iterator[Item]:
    for name in _FOLDERS:
        yield Item(name, mode=0o755)
    yield Item("tmp", mode=0o1777)
    for name in _MERGED[:3]:
        yield Item(name, link=f"usr/{name}")
        yield Item(f"usr/{name}", mode=0o755)
    yield Item("lib64", link="usr/lib64")
    yield Item("usr/lib64", mode=0o755)
    yield Item("etc/passwd", _ACCOUNTS.encode())
    yield Item("etc/group", _GROUPS.encode())


def _merged(path: str) -> str:
    return f"usr/{path}" if path.split("/")[0] in _MERGED and "/" in path else path


def _status(package: Package) -> Item:
    """Where scanners look for what an image without a packager holds."""
    text = f"Package: {package.name}\nStatus: install ok installed\nVersion: {package.version}\n"
    return Item(f"var/lib/dpkg/status.d/{package.name}", f"{text}Architecture: {package.architecture}\n".encode())


def _certificates(items: Iterable[Item]) -> list[Item]:
    """The authorities in one file, as update-ca-certificates writes it."""
    own = sorted(i for i in items if i.path.startswith("usr/share/ca-certificates/") and isinstance(i.content, bytes))
    text = b"".join(i.content for i in own if isinstance(i.content, bytes))
    return [Item("etc/ssl/certs/ca-certificates.crt", text)] if text else []


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"
