"""One store, one writer: statements and transactions over whichever database is under it."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

from leptonai.errors import LeptonError, SpecError


class Engine(Protocol):
    """A kind of database. Called by one thread at a time but for ``held``; raises LeptonError only.

    Statements have ``?`` for values and are of the SQL that SQLite and PostgreSQL share.
    """

    place: str  # what it is called in messages: no secret is in it
    session: int  # rises when the connection was made anew: what was read before may not be true any more

    def begin(self) -> None: ...

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows."""

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """``sql`` for each of ``rows``, in their order."""

    def in_transaction(self) -> bool: ...

    def last_id(self, table: str) -> int:
        """The highest id that ``table`` ever had, though its row be gone; 0: none."""

    def skip_ids(self, table: str, last: int) -> None:
        """``table`` has had ids up to ``last``. In a transaction."""

    def held(self) -> None:
        """Raises why nothing can be read or written now; nothing when it can, as far as is known. From any thread."""

    def roomy(self) -> bool:
        """Whether there is room for some writes, as far as can be seen from here."""

    def close(self) -> None: ...


class Database:
    """An open store, held exclusively until closed or until the process dies.

    A write is acknowledged when its method, or the outermost ``transaction`` around it, returns: it has then been
    synced (see the engines). Calls from several threads are serialised; a transaction must not be left open over an
    ``await``.
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        """Open or create the store: a file, or ``postgresql://...``; its schema is brought up to date.

        Raises Conflict when another process holds it; LeptonError when it is corrupt, not ours, newer than this
        version, unwritable, away, or the disk is full.
        """
        self._lock = threading.RLock()
        self._depth = 0
        self.full: LeptonError | None = None  # the refusal of the first write that found no room, until ``relieved``
        self._engine: Engine
        if re.match(r"[a-z]+://", str(place)):
            from leptonai.store.postgres.engine import PostgresEngine

            self._engine = PostgresEngine(str(place), self._lock)
        else:
            from leptonai.store.sqlite import SqliteEngine

            self._engine = SqliteEngine(os.fspath(place))

    @property
    def place(self) -> str:
        """Where it is, as may be shown."""
        return self._engine.place

    @property
    def session(self) -> int:
        """Another number than before: the connection was lost meanwhile, so read again what was kept in memory."""
        return self._engine.session

    def held(self) -> None:
        """Nothing while this process is the one writer; raises why it is not."""
        self._engine.held()

    @contextmanager
    def relieved(self) -> Iterator[bool]:
        """Whether the store that was ``full`` may be written again; it is full no more once what is inside was kept."""
        roomy = self._engine.roomy()
        yield roomy
        if roomy:
            self.full = None

    def close(self) -> None:
        """Let go. Further calls raise LeptonError; closing twice is fine."""
        with self._lock:
            self._engine.close()

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
        with self._lock:
            inner = f"s{self._depth}" if self._depth else ""
            if inner:
                self._run(f"SAVEPOINT {inner}")
            else:
                self._engine.begin()
            self._depth += 1
            try:
                yield
                self._run(f"RELEASE {inner}" if inner else "COMMIT")
            except BaseException as e:
                self._undo(inner)
                self._note(e)
                raise
            finally:
                self._depth -= 1

    def _note(self, e: BaseException) -> None:
        if self.full is None and isinstance(e, LeptonError) and e.code == "disk_full":
            self.full = e

    def _undo(self, inner: str) -> None:
        if not self._engine.in_transaction():  # the database itself has rolled back, or is away
            return
        try:
            for statement in [f"ROLLBACK TO {inner}", f"RELEASE {inner}"] if inner else ["ROLLBACK"]:
                self._engine.execute(statement)
        except LeptonError:
            if self._engine.in_transaction():
                raise

    def _run(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        if self._depth and not self._engine.in_transaction():  # what follows would be kept without what came before
            raise LeptonError(
                f"{self.place}: this transaction was rolled back by an earlier error", hint="let that error leave it"
            )
        try:
            return self._engine.execute(sql, values)
        except LeptonError as e:
            self._note(e)
            raise

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock, _storable():
            return self._run(sql, values)

    def _one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """The first column of the first row; None when there is no row."""
        rows = self._rows(sql, values)
        return rows[0][0] if rows else None

    def _insert(self, table: str, **columns: Any) -> None:
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        self._rows(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(columns.values()))  # noqa: S608 - names are ours

    def _each(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """``sql`` for each of ``rows``, in their order; all or none."""
        with self.transaction(), _storable():
            self._engine.many(sql, rows)


@contextmanager
def _storable() -> Iterator[None]:
    try:
        yield
    except OverflowError as e:
        raise SpecError(
            "a number is larger than any that can be stored: the limit is 2^63 - 1",
            hint="sequence numbers, ids and revisions are counted from 1",
        ) from e
    except UnicodeEncodeError as e:
        raise SpecError("a text that is no Unicode cannot be stored", hint="send UTF-8") from e
