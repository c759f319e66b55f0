"""Python distributions as files: of wheels by their digests, or as they are installed where we run."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import zipfile
from collections.abc import Iterable
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import leptonai
from leptonai.errors import SpecError
from leptonai.image.base import Python
from leptonai.image.layer import Item

OURS = "leptonai-platform"
# Of one installation, not of what is installed: where from, by whom, for whom.
_LOCAL = ("direct_url.json", "INSTALLER", "REQUESTED", "RECORD", "uv_cache.json", "uv_build.json")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class Distribution(NamedTuple):
    """``files``: below site-packages, without bytecode and programs. ``sha256``: of the wheel, else of the files."""

    name: str  # normalised
    version: str
    license: str
    sha256: str
    wheel: str  # its file's name; "" when taken as it is installed
    files: tuple[Item, ...]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(name: str, python: Python) -> Distribution:
    """``name`` as it is installed here. SpecError when it is not, cannot be copied, or is for another Python."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError as e:
        raise SpecError(f"{name} is not installed here", hint="install it, or give --lock with wheels") from e
    name = normal(found.metadata["Name"])
    site = Path(str(found.locate_file("")))
    paths = [PurePosixPath(f.as_posix()) for f in found.files or ()]
    if name == OURS:
        package = Path(leptonai.__file__).parent
        own = [p for p in package.rglob("*") if p.is_file()]
        files = [(PurePosixPath("leptonai", p.relative_to(package).as_posix()), p) for p in own]
        files += [(p, site / p) for p in paths if p.parts[0].endswith(".dist-info")]
    else:
        files = [(p, site / p) for p in paths]
        if any(p.suffix == ".pth" and "editable" in p.name for p in paths):
            raise SpecError(f"{name} is installed as editable, so its files are elsewhere", hint=f"pip install {name}")
    items = [_item(str(p), _there(name, real)) for p, real in files if _belongs(p)]
    if not items:
        raise SpecError(f"{name} says not which files it has", hint="install it by pip, or give --lock with wheels")
    _fits(name, _tags(found.read_text("WHEEL") or ""), python)
    made = _recorded(items)
    sha = hashlib.sha256(b"".join(_fingerprint(item) for item in made)).hexdigest()
    return Distribution(name, found.version, _license(found.read_text("METADATA") or ""), sha, "", made)


def wheel(path: Path, python: Python, scratch: Path) -> Distribution:
    """The distribution in a wheel, unpacked below ``scratch``. SpecError when it is none, or for another Python."""
    items = []
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                place = _place(PurePosixPath(info.filename))
                if place is not None and not info.is_dir() and _belongs(place):
                    mode = 0o755 if info.external_attr >> 16 & 0o111 else 0o644  # as pip does
                    items.append(Item(str(place), Path(archive.extract(info, scratch / path.name)), mode))
    except (zipfile.BadZipFile, OSError, RuntimeError) as e:
        raise SpecError(f"{path.name} is no whole wheel: {e}", hint="download it again") from e
    infos = [i for i in items if ".dist-info/" in i.path and i.path.count("/") == 1]
    texts = {PurePosixPath(i.path).name: i.content for i in infos if isinstance(i.content, Path)}
    if "METADATA" not in texts or "WHEEL" not in texts:
        raise SpecError(f"{path.name} is no wheel: it has no METADATA", hint="give wheels, not source archives")
    head = texts["METADATA"].read_text()
    fields = HeaderParser().parsestr(head)
    name = normal(fields["Name"])
    _fits(name, _tags(texts["WHEEL"].read_text()), python)
    return Distribution(name, fields["Version"], _license(head), sha256(path), path.name, _recorded(items))


def _place(path: PurePosixPath) -> PurePosixPath | None:
    """Where a wheel's file goes below site-packages; None for programs and headers."""
    if not path.parts or not path.parts[0].endswith(".data"):
        return path
    return PurePosixPath(*path.parts[2:]) if path.parts[1] in ("purelib", "platlib") else None


def _belongs(path: PurePosixPath) -> bool:
    if ".." in path.parts or path.is_absolute() or "__pycache__" in path.parts or path.suffix == ".pyc":
        return False
    return not (path.parts[0].endswith(".dist-info") and path.name in _LOCAL)


def _item(place: str, path: Path) -> Item:
    return Item(place, path, 0o755 if path.stat().st_mode & 0o111 else 0o644)


def _there(name: str, path: Path) -> Path:
    if not path.is_file():
        raise SpecError(f"{name} is not whole here: no file {path}", hint=f"pip install --force-reinstall {name}")
    return path


def _tags(text: str) -> list[str]:
    return [line[5:].strip() for line in text.splitlines() if line.startswith("Tag: ")]


def sha256(content: bytes | Path | None) -> str:
    if isinstance(content, Path):
        with content.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    return hashlib.sha256(content or b"").hexdigest()


def _fits(name: str, tags: list[str], python: Python) -> None:
    if tags and not any(_runs(tag, python) for tag in tags):
        raise SpecError(
            f"{name} is built for {', '.join(tags)}, and the base has Python 3.{python.minor} on {python.machine}",
            hint="give --lock with wheels for the base's Python, or a --base with the Python that runs here",
            code="lock_mismatch",
        )


def _runs(tag: str, python: Python) -> bool:
    """Whether a wheel of ``tag`` (interpreter-abi-platform, PEP 425) runs on ``python``."""
    interpreter, abi, system = tag.strip().split("-", 2)
    if system != "any" and not ("linux" in system and system.endswith(_MACHINES[python.machine])):
        return False
    if abi == "abi3":
        return any(int(v) <= python.minor for v in re.findall(r"cp3(\d+)", interpreter))
    return any(v in ("py3", f"py3{python.minor}", f"cp3{python.minor}") for v in interpreter.split("."))


def _recorded(items: Iterable[Item]) -> tuple[Item, ...]:
    """``items`` in order, with a RECORD of just them: `pip check` and scanners read what there is."""
    made = sorted(items, key=lambda i: i.path)
    info = next((i.path.split("/")[0] for i in made if i.path.split("/")[0].endswith(".dist-info")), None)
    if info is None:
        return tuple(made)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for item in made:
        digest = base64.urlsafe_b64encode(bytes.fromhex(sha256(item.content))).rstrip(b"=").decode()
        size = item.content.stat().st_size if isinstance(item.content, Path) else len(item.content or b"")
        rows.writerow([item.path, f"sha256={digest}", size])
    rows.writerow([f"{info}/RECORD", "", ""])
    made.append(Item(f"{info}/RECORD", text.getvalue().encode()))
    return tuple(made)


def _fingerprint(item: Item) -> bytes:
    return f"{item.path}\0{sha256(item.content)}\n".encode()


def _license(text: str) -> str:
    """The licence as an SPDX expression where the metadata has one (PEP 639), else what it says in one short line."""
    fields = HeaderParser().parsestr(text)
    if fields["License-Expression"]:
        return str(fields["License-Expression"])
    said = str(fields["License"] or "").strip()
    if said and "\n" not in said and len(said) < 80:
        return said
    classes = [c.rpartition(" :: ")[2] for c in fields.get_all("Classifier", []) if c.startswith("License ::")]
    return ", ".join(classes)
