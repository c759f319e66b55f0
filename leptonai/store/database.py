"""One SQLite file, one writer: opening, migrating, transactions, and SQLite's errors in our words."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from leptonai.errors import Conflict, LeptonError, SpecError
from leptonai.store.schema import APPLICATION, MIGRATIONS

_CHECK_BYTES = 256 << 20  # a larger store is opened unchecked: reading it all would delay the start by seconds
_BUSY_SECONDS = 1.0  # a second platform is told at once; a killed writer's lock is already gone


class Database:
    """An open store file, held exclusively until closed (SQLite's own lock: it dies with the process).

    A write is acknowledged when its method, or the outermost ``transaction`` around it, returns: the WAL has then been
    synced (``synchronous=FULL``). Calls from several threads are serialised; a transaction must not
    be left open over an ``await``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open or create ``path`` (mode 0600) and bring its schema up to date.

        Raises Conflict when another process holds it; LeptonError when it is corrupt, not ours, newer than this
        version, unwritable, or the disk is full.
        """
        self.path = Path(path)
        self._lock = threading.RLock()
        self._depth = 0
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:  # never opened by hand: closing it would drop SQLite's POSIX lock in this process
            pass
        except OSError as e:
            raise LeptonError(
                f"cannot create the store {self.path}: {e.strerror}",
                hint="the home folder must exist and be writable by this user",
                code="store_unwritable",
            ) from e
        with self._words():
            self._db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._open()
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        self._rows("PRAGMA locking_mode = EXCLUSIVE")
        version = self._schema()  # before anything is written: the file may be somebody else's
        self._rows("PRAGMA journal_mode = WAL")
        self._rows("PRAGMA synchronous = FULL")
        self._rows("PRAGMA recursive_triggers = ON")  # so that REPLACE cannot slip past the triggers
        with self.transaction():  # takes the lock, for good
            if self.path.stat().st_size <= _CHECK_BYTES and (wrong := self._one("PRAGMA quick_check(1)")) != "ok":
                raise self._corrupt(wrong)
            for script in MIGRATIONS[version:]:
                for statement in _statements(script):
                    self._rows(statement)
            if version < len(MIGRATIONS):
                self._rows(f"PRAGMA user_version = {len(MIGRATIONS)}")
                self._rows(f"PRAGMA application_id = {APPLICATION}")

    def _schema(self) -> int:
        """The schema of the file, 0 for a fresh one; LeptonError when it is not ours or newer than we are."""
        version = int(self._one("PRAGMA user_version"))
        ours = self._one("PRAGMA application_id")
        tables = self._one("SELECT count(*) FROM sqlite_master")
        if ours not in (0, APPLICATION) or (ours == 0 and tables):
            raise LeptonError(
                f"{self.path} is a SQLite file of another program",
                hint="choose another home folder",
                code="store_foreign",
            )
        if version > len(MIGRATIONS):
            raise LeptonError(
                f"{self.path} has schema {version}; this version of leptonai knows {len(MIGRATIONS)}",
                hint="run the leptonai version that wrote it, or a newer one",
                code="store_newer",
            )
        return version

    def close(self) -> None:
        """Release the file. Further calls raise LeptonError; closing twice is fine."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other thread reads or writes through this object meanwhile; it nests, and with transactions too."""
        with self._lock:
            yield

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All appends inside are kept together or, when an exception leaves it, none is. It nests."""
        with self._lock, self._words():
            inner = f"s{self._depth}"
            begin, end, undo = "BEGIN IMMEDIATE", "COMMIT", ["ROLLBACK"]
            if self._depth:
                begin, end = f"SAVEPOINT {inner}", f"RELEASE {inner}"
                undo = [f"ROLLBACK TO {inner}", f"RELEASE {inner}"]
            self._db.execute(begin)
            self._depth += 1
            try:
                yield
                self._db.execute(end)
            except BaseException:
                if self._db.in_transaction:  # SQLite itself has rolled back after some errors
                    for statement in undo:
                        self._db.execute(statement)
                raise
            finally:
                self._depth -= 1

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> tuple[list[Any], int]:
        """All rows, and the id of the row inserted last."""
        with self._lock, self._words():
            if self._depth and not self._db.in_transaction:  # what follows would be kept without what came before
                raise LeptonError(
                    f"{self.path}: this transaction was rolled back by an earlier error", hint="let that error leave it"
                )
            cursor = self._db.execute(sql, values)
            return cursor.fetchall(), cursor.lastrowid or 0

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        return self._execute(sql, values)[0]

    def _one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """The first column of the first row; None when there is no row."""
        rows = self._rows(sql, values)
        return rows[0][0] if rows else None

    def _insert(self, table: str, **columns: Any) -> int:
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        sql = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - names are ours
        return self._execute(sql, tuple(columns.values()))[1]

    @contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            raise self._said(e) from e
        except OverflowError as e:
            raise SpecError(
                "a number is larger than any that can be stored: the limit is 2^63 - 1",
                hint="sequence numbers, ids and revisions are counted from 1",
            ) from e

    def _said(self, e: sqlite3.Error) -> LeptonError:
        code = getattr(e, "sqlite_errorcode", None)
        kind = None if code is None else code & 0xFF  # the low byte is the primary code
        if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Conflict(
                f"the store {self.path} is held by another process",
                hint="one platform per home folder: stop the other one (leptonai down) or choose another --home",
                code="store_locked",
            )
        if kind == sqlite3.SQLITE_FULL:
            return LeptonError(
                f"the disk of {self.path} is full: nothing was written",
                hint=f"free space under {self.path.parent}, then try again",
                code="disk_full",
                status=507,
                retry=True,
            )
        if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self._corrupt(str(e))
        if kind in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return LeptonError(
                f"the store {self.path} cannot be written: {e}",
                hint="check the owner and mode of the file and its folder",
                code="store_unwritable",
            )
        return LeptonError(
            f"the store {self.path} failed: {e}", hint="see control.log; nothing of this write was kept", code="store"
        )

    def _corrupt(self, wrong: str) -> LeptonError:
        return LeptonError(
            f"the store {self.path} is corrupt: {wrong}",
            hint="restore it from a backup, or move it away to start with an empty one; replicas keep running",
            code="store_corrupt",
        )


def _statements(script: str) -> Iterator[str]:
    """The script's statements one by one: sqlite3's executescript would commit the migration's transaction."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    assert not pending.strip(), f"unfinished statement in a migration: {pending}"
