"""Which runbook is in force: ours, and over it, cause by cause, an operator's files in ``<home>/runbooks``."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path

from leptonai.errors import PluginError
from leptonai.ops.diagnosis.causes import CAUSES
from leptonai.ops.diagnosis.files import Stamp, stamps
from leptonai.ops.remedies import Remedies, load_remedies
from leptonai.ops.runbook.form import Text
from leptonai.ops.runbook.read import bind, load_runbook, read
from leptonai.ops.runbook.rows import Runbook

SHIPPED = Path(__file__).with_name("shipped.yaml")


@cache
def shipped() -> Runbook:
    """The runbook that ships with us: a row for every cause of the taxonomy."""
    book = load_runbook(SHIPPED, load_remedies())
    if missing := CAUSES.keys() - {row.cause for row in book.rows()}:
        raise PluginError(f"{SHIPPED}: no row for {', '.join(sorted(missing))}", hint="an empty row {} calls a person")
    return book


class RunbookFiles:
    """``book`` is always whole: a broken file is left out, its last good version stays in force where there was one."""

    def __init__(self, folder: Path | None = None) -> None:
        self.book = shipped()
        self.broken: dict[str, PluginError] = {}  # path -> what is wrong with it
        self._folder = folder
        self._remedies: Remedies = load_remedies()
        self._seen: tuple[dict[Path, Stamp], frozenset[str]] = {}, frozenset(CAUSES)
        self._good: dict[Path, Text] = {}

    def look(self, causes: Collection[str] = CAUSES) -> bool:
        """Read what has changed since the last look, in the order of names; True when something had.

        ``causes``: those that the rules in force know. Two files may not speak of one cause: the later one is broken.
        """
        seen = stamps(self._folder), frozenset(causes)
        if seen == self._seen:
            return False
        before, self._seen = self._seen, seen
        book, owner, good = Runbook({}), dict[str, Path](), dict[Path, Text]()
        self.broken = {}
        for path in seen[0]:
            for text in self._versions(path, same=before[0].get(path) == seen[0][path]):
                try:
                    mine = bind(text, str(path), self._remedies, causes)
                    _apart(path, text, owner)
                except PluginError as e:
                    self.broken.setdefault(str(path), e)
                    continue
                book, good[path] = mine.over(book), text
                owner |= dict.fromkeys(text, path)
                break
        self._good = good
        self.book = book.over(shipped())
        return True

    def _versions(self, path: Path, same: bool) -> list[Text]:
        """The newest text of ``path`` first, then the one that was good."""
        good = [self._good[path]] if path in self._good else []
        if same and good:
            return good
        try:
            return [read(path), *good]
        except PluginError as e:
            self.broken[str(path)] = e
            return good


def _apart(path: Path, text: Text, owner: dict[str, Path]) -> None:
    for cause in text:
        if cause in owner:
            raise PluginError(
                f"{path}: {cause}: {owner[cause].name} has a row for it already", hint="keep one of the two"
            )
