"""The store as one SQLite file: opening, migrating, and SQLite's errors in our words."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from leptonai.errors import Conflict, LeptonError
from leptonai.store.schema import APPLICATION, MIGRATIONS, statements

_CHECK_BYTES = 256 << 20  # a larger store is opened unchecked: reading it all would delay the start by seconds
_BUSY_SECONDS = 1.0  # a second platform is told at once; a killed writer's lock is already gone
_ROOM = (
    1 << 20
)  # bytes free from which on a full disk counts as relieved: what a deploy and its events take, many times


class SqliteEngine:
    """One file, held exclusively until closed (SQLite's own lock: it dies with the process).

    What was committed has been synced into the WAL (``synchronous=FULL``).
    """

    session = 1  # a file is never away

    def __init__(self, path: str) -> None:
        """Open or create ``path`` (mode 0600) and bring its schema up to date."""
        self._path = Path(path)
        self.place = path
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:  # never opened by hand: closing it would drop SQLite's POSIX lock in this process
            pass
        except OSError as e:
            raise LeptonError(
                f"cannot create the store {path}: {e.strerror}",
                hint="the home folder must exist and be writable by this user",
                code="store_unwritable",
            ) from e
        with self._words():
            self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._open()
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        self.execute("PRAGMA locking_mode = EXCLUSIVE")
        version = self._schema()  # before anything is written: the file may be somebody else's
        self.execute("PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = FULL")
        self.execute("PRAGMA recursive_triggers = ON")  # so that REPLACE cannot slip past the triggers
        self.begin()  # takes the lock, for good
        try:
            wrong = self._first("PRAGMA quick_check(1)") if self._path.stat().st_size <= _CHECK_BYTES else "ok"
            if wrong != "ok":
                raise self._corrupt(wrong)
            for script in MIGRATIONS[version:]:
                for statement in statements(script):
                    self.execute(statement)
            if version < len(MIGRATIONS):
                self.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
                self.execute(f"PRAGMA application_id = {APPLICATION}")
            self.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self.execute("ROLLBACK")
            raise

    def _schema(self) -> int:
        """The schema of the file, 0 for a fresh one; LeptonError when it is not ours or newer than we are."""
        version = int(self._first("PRAGMA user_version"))
        ours = self._first("PRAGMA application_id")
        tables = self._first("SELECT count(*) FROM sqlite_master")
        if ours not in (0, APPLICATION) or (ours == 0 and tables):
            raise LeptonError(
                f"{self.place} is a SQLite file of another program",
                hint="choose another home folder",
                code="store_foreign",
            )
        if version > len(MIGRATIONS):
            raise LeptonError(
                f"{self.place} has schema {version}; this version of leptonai knows {len(MIGRATIONS)}",
                hint="run the leptonai version that wrote it, or a newer one",
                code="store_newer",
            )
        return version

    def held(self) -> None:
        """A file is held from the opening to the end of the process."""

    def roomy(self) -> bool:
        return shutil.disk_usage(self._path.parent).free >= _ROOM

    def close(self) -> None:
        self._db.close()

    def begin(self) -> None:
        self.execute("BEGIN IMMEDIATE")

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._words():
            return self._db.execute(sql, values).fetchall()

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._words():
            self._db.executemany(sql, rows)

    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def last_id(self, table: str) -> int:
        return int(self._first("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?", (table,)))

    def skip_ids(self, table: str, last: int) -> None:
        self.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        self.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, last))

    def _first(self, sql: str, values: Sequence[Any] = ()) -> Any:
        return self.execute(sql, values)[0][0]

    @contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            raise self._said(e) from e

    def _said(self, e: sqlite3.Error) -> LeptonError:
        code = getattr(e, "sqlite_errorcode", None)
        kind = None if code is None else code & 0xFF  # the low byte is the primary code
        if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Conflict(
                f"the store {self.place} is held by another process",
                hint="one platform per home folder: stop the other one (leptonai down) or choose another --home",
                code="store_locked",
            )
        if kind == sqlite3.SQLITE_FULL:
            return LeptonError(
                f"the disk of {self.place} is full: nothing was written",
                hint=f"free space under {self._path.parent}, then try again",
                code="disk_full",
                status=507,
                retry=True,
            )
        if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self._corrupt(str(e))
        if kind in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return LeptonError(
                f"the store {self.place} cannot be written: {e}",
                hint="check the owner and mode of the file and its folder",
                code="store_unwritable",
            )
        return LeptonError(
            f"the store {self.place} failed: {e}", hint="see control.log; nothing of this write was kept", code="store"
        )

    def _corrupt(self, wrong: str) -> LeptonError:
        return LeptonError(
            f"the store {self.place} is corrupt: {wrong}",
            hint="restore it from a backup, or move it away to start with an empty one; replicas keep running",
            code="store_corrupt",
        )
