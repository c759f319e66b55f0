"""Which rule files are in force: those that ship with us, and an operator's in ``<home>/rules``, as they are now."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from leptonai.errors import PluginError
from leptonai.ops.diagnosis.causes import CAUSES
from leptonai.ops.diagnosis.rules import Base, Document, RuleBook, bind, read
from leptonai.ops.diagnosis.signals import COLLECTED
from leptonai.ops.known import ABOUT, FEATURES

SHIPPED = Path(__file__).with_name("shipped")
MOST_BYTES = 1 << 20  # of one file
BASE = Base(CAUSES, FEATURES, ABOUT, COLLECTED)

Stamp = tuple[int, int, int]  # inode, size, time of change


@cache
def shipped_documents() -> tuple[tuple[str, Document], ...]:
    """The files that ship with us, by name."""
    return tuple((path.name, read(path)) for path in sorted(SHIPPED.glob("*.yaml")))


@cache
def shipped_book() -> RuleBook:
    """What ships with us, checked; PluginError when a file is damaged."""
    return bind(shipped_documents(), BASE)


def book_with(path: Path) -> tuple[RuleBook, Document]:
    """What ships with us and the file of an operator, checked together; PluginError naming the file."""
    document = _read(path)
    return bind((*shipped_documents(), (str(path), document)), BASE), document


def stamps(folder: Path | None) -> dict[Path, Stamp]:
    """What tells one state of each ``*.yaml`` in ``folder`` from another, in the order of names; none of None."""
    found: dict[Path, Stamp] = {}
    for path in sorted(folder.glob("*.yaml")) if folder is not None else ():
        try:
            seen = path.stat()
        except OSError:
            continue  # gone while we looked
        found[path] = (seen.st_ino, seen.st_size, seen.st_mtime_ns)
    return found


class RuleFiles:
    """``book`` is always whole: a broken file is left out, its last good version stays in force where there was one."""

    def __init__(self, folder: Path | None = None) -> None:
        self.book = shipped_book()
        self.broken: dict[str, PluginError] = {}  # path -> what is wrong with it
        self._folder = folder
        self._stamps: dict[Path, Stamp] = {}
        self._good: dict[Path, Document] = {}

    def look(self) -> bool:
        """Read what has changed since the last look, in the order of names; True when something had."""
        found = stamps(self._folder)
        if found == self._stamps:
            return False
        documents: list[tuple[Path, Document]] = []
        self.broken = {}
        for path, stamp in found.items():
            try:
                document = self._good[path] if self._stamps.get(path) == stamp and path in self._good else _read(path)
            except PluginError as e:
                self.broken[str(path)] = e
                if path not in self._good:
                    continue
                document = self._good[path]
            documents.append((path, document))
        self._stamps = found
        self._bind(documents)
        return True

    def _bind(self, documents: list[tuple[Path, Document]]) -> None:
        """Each file that agrees with all before it is in force; of one that does not, its last good version may be."""
        book, chosen = shipped_book(), list(shipped_documents())
        good: dict[Path, Document] = {}
        for path, document in documents:
            versions = [document] if self._good.get(path, document) is document else [document, self._good[path]]
            for version in versions:
                try:
                    book = bind((*chosen, (str(path), version)), BASE)
                except PluginError as e:
                    self.broken.setdefault(str(path), e)
                    continue
                chosen.append((str(path), version))
                good[path] = version
                break
        self.book, self._good = book, good


def _read(path: Path) -> Document:
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise PluginError(f"{path} has {size:,} bytes; a rule file has {MOST_BYTES:,} at most", hint="split it")
        if not path.is_file():
            raise PluginError(f"{path} is no file", hint="a rule file is a plain YAML file")
    except OSError as e:
        raise PluginError(f"{path}: {e.strerror or e}", hint="see docs/diagnosis.md for the form of a rule file") from e
    return read(path)
