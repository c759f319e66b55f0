"""The store in a PostgreSQL database: one session at a time, made anew when it is lost, and never beside another's."""

from __future__ import annotations

import logging
import os
import secrets
import select
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import Any, TypeVar

from leptonai.errors import Conflict, LeptonError, PlatformError

try:
    import psycopg
    from psycopg.pq import TransactionStatus
except ImportError as e:
    raise PlatformError(
        "a store in PostgreSQL needs psycopg, which is not installed",
        hint="pip install 'leptonai-platform[postgres]'",
        code="store_unreachable",
    ) from e

from leptonai.store.postgres import words
from leptonai.store.postgres.dialect import numbered
from leptonai.store.postgres.session import Session

T = TypeVar("T")
log = logging.getLogger("leptonai.store")
LOOK = 0.5  # seconds between two looks whether the session still lives, or hangs
FIRST, MOST = 0.1, 5.0  # seconds until a lost session is tried anew, doubled each time up to MOST


class PostgresEngine:
    """A session of PostgreSQL that holds an advisory lock: the server lets one platform write, and frees the lock when
    that session ends, however it ends. What was committed is as durable as the server makes it (``synchronous_commit``
    on).

    A lost session is made anew by a thread, with back-off; until then every call is refused with
    ``store_unreachable``. A write whose commit was under way is refused with ``store_unsure``: nobody knows. When
    another platform has opened the store meanwhile, every call is refused with ``store_locked``, for good.
    """

    def __init__(self, url: str, lock: threading.RLock) -> None:
        """The store at ``url``, created or migrated."""
        self._parameters, self.place = words.address(url)
        self._me = f"leptonai {socket.gethostname()[:24]}:{os.getpid()} {secrets.token_hex(6)}"  # 63 bytes at most
        self._lock = lock
        self._trouble: LeptonError | None = None
        self.session = 1
        self._session: Session | None = self._open(lambda session: session.migrate(self._me))
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="store", daemon=True)
        self._keeper.start()

    def held(self) -> None:
        self._live()

    def roomy(self) -> bool:
        return True  # nothing tells; whoever writes finds out

    def close(self) -> None:
        self._closing.set()
        if self._session is not None:
            self._session.close()
            self._session = None
        self._trouble = LeptonError(f"the store {self.place} is closed", hint="open it again")

    def begin(self) -> None:
        self.execute("BEGIN")

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        return self._ask(sql, lambda session: session.rows(numbered(sql), _fitting(values)))

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        kept = [_fitting(row) for row in rows]
        if kept:
            self._ask(sql, lambda session: session.many(numbered(sql), kept))

    def in_transaction(self) -> bool:
        return self._session is not None and self._session.db.info.transaction_status != TransactionStatus.IDLE

    def last_id(self, table: str) -> int:
        return int(self.execute(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {table}_ids")[0][0])  # noqa: S608

    def skip_ids(self, table: str, last: int) -> None:
        if last:
            self.execute(f"SELECT setval('{table}_ids', ?)", (last,))

    def _live(self) -> Session:
        if self._session is None:
            assert self._trouble is not None
            raise copy(self._trouble)
        return self._session

    def _ask(self, sql: str, call: Callable[[Session], T]) -> T:
        session = self._live()
        verb = sql.split(None, 1)[0]
        status = session.db.info.transaction_status
        if status == TransactionStatus.INERROR and verb != "ROLLBACK":  # a COMMIT would roll back without a word
            raise LeptonError(
                f"{self.place}: this transaction was rolled back by an earlier error", hint="let that error leave it"
            )
        try:
            return call(session)
        except psycopg.Error as e:
            if not session.db.closed:
                raise words.said(e, self.place) from e
            self._lose(e)
            alone = status == TransactionStatus.IDLE and verb not in ("SELECT", "BEGIN")
            raise (words.unsure if verb == "COMMIT" or alone else words.away)(e, self.place) from e

    def _lose(self, e: psycopg.Error) -> None:
        assert self._session is not None
        self._session.close()
        self._session, self._trouble = None, words.away(e, self.place)
        log.error("%s", self._trouble)

    def _open(self, first: Callable[[Session], object]) -> Session:
        """A fresh session, after ``first`` was done in it; closed again when that raises."""
        session = Session(self._parameters, self.place, self._me)
        try:
            first(session)
        except psycopg.Error as e:
            session.close()
            raise words.unreachable(e, self.place) from e
        except BaseException:
            session.close()
            raise
        return session

    # --- in a thread of its own --------------------------------------------------------------------------------------

    def _keep(self) -> None:
        delay = FIRST
        while not self._closing.wait(delay if self._session is None else LOOK):
            if self._session is not None:
                self._look()
                delay = FIRST
                continue
            try:
                self._return()
            except Conflict as e:
                log.critical("%s: this platform writes nothing any more", e)
                self._trouble = e
                return
            except LeptonError as e:
                if str(e) != str(self._trouble):
                    log.error("%s", e)
                with self._lock:
                    if not self._closing.is_set():
                        self._trouble = e
                delay = min(delay * 2, MOST)

    def _look(self) -> None:
        """Whoever uses the session will find out by itself that it is lost; else an end of it is there to be read."""
        session = self._session
        if not self._lock.acquire(blocking=False):
            if session is not None and session.hangs():
                log.error("%s does not answer: the connection is cut", self.place)
                session.cut()
            return
        try:
            if self._session is not None and select.select([self._session.db.fileno()], [], [], 0)[0]:
                self.execute("SELECT 1")
        except LeptonError:
            pass  # told by _lose
        finally:
            self._lock.release()

    def _return(self) -> None:
        """A new session is in place. Conflict when somebody else holds the store, or has opened it in between."""

        def ours(session: Session) -> None:
            with session.bounded():
                writer = session.writer()
            if writer != self._me:
                raise words.taken(self.place, ": it was opened there while we were away")

        session = self._open(ours)
        with self._lock:
            if self._closing.is_set():
                session.close()
                return
            self._session, self._trouble = session, None
            self.session += 1
        log.info("the store %s is back", self.place)


def _fitting(values: Sequence[Any]) -> Sequence[Any]:
    """OverflowError for what no column holds: the driver would send a wider number, and find nothing."""
    for value in values:
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            raise OverflowError
    return values
