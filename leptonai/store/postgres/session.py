"""One session of PostgreSQL: as we need it, and the only one of our kind on its schema."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from leptonai.errors import LeptonError
from leptonai.store.postgres import dialect, words
from leptonai.store.schema import APPLICATION, MIGRATIONS

log = logging.getLogger("leptonai.store")

BUSY = 1.0  # seconds: a second platform is told at once; the server frees a dead one's lock within moments
PATIENCE = 10.0  # seconds for one answer: a checkpoint on a slow disk takes some, more is a server that hangs
# libpq's, unless the address says otherwise: a host that vanished is noticed in 25 s instead of two hours.
DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "target_session_attrs": "read-write",  # of several hosts the primary
    "client_encoding": "UTF8",
}
# Of the session: commits are on disk when acknowledged; a client that vanished loses its lock in 25 s too; an idle
# session is not ended, its lock is ours; whoever locks a table for long is told of instead of being waited for.
SETTINGS = {
    "synchronous_commit": "on",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "statement_timeout": "0",
    "lock_timeout": "5000",
}
_LOCK = f"{APPLICATION}, hashtext(current_schema())"
_HOLDER = """
SELECT a.pid, a.application_name, coalesce(host(a.client_addr), 'its own machine')
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = $1 AND l.objsubid = 2
  AND l.objid::bigint = hashtext(current_schema())::bigint & 4294967295 AND a.datname = current_database()
"""
# Objects of extensions are nobody's tables.
_TABLES = """
SELECT count(*) FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v')
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
"""

Connection = psycopg.Connection[tuple[Any, ...]]


class Session:
    """An open connection that holds the schema's advisory lock: both end together."""

    def __init__(self, parameters: dict[str, str], place: str, me: str) -> None:
        """``me``: what others see as the holder. Conflict ``store_locked`` while somebody else is; a lock that we
        ourselves still have, of a connection that was cut on our side only, is taken from that one.

        PlatformError ``store_unreachable`` or ``store_refused`` when there is none to be had.
        """
        self.place = place
        self.since: float | None = None  # of the answer that is waited for
        try:
            self.db: Connection = psycopg.connect(
                make_conninfo(**(DEFAULTS | parameters | {"application_name": me})),
                autocommit=True,
                cursor_factory=psycopg.RawCursor,
            )
        except psycopg.Error as e:
            raise words.unreachable(e, place) from e
        # another descriptor of the same connection: to cut it from another thread, whatever became of the first
        self._wire = socket.socket(fileno=os.dup(self.db.fileno()))
        try:
            with self.bounded():
                self._begin(me)
        except psycopg.Error as e:
            error = words.unreachable(e, place) if self.db.closed else words.said(e, place)
            self.close()
            raise error from e
        except BaseException:
            self.close()
            raise

    def _begin(self, me: str) -> None:
        for name, value in SETTINGS.items():  # only those that this version has
            self.rows("SELECT set_config(name, $1, false) FROM pg_settings WHERE name = $2", (value, name))
        [(schema, encoding, fsync)] = self.rows(
            "SELECT current_schema(), current_setting('server_encoding'), current_setting('fsync')"
        )
        if schema is None or encoding != "UTF8":
            wrong = "its search_path names no schema" if schema is None else f"its encoding is {encoding}, not UTF8"
            raise LeptonError(
                f"the store {self.place} cannot be used: {wrong}",
                hint="CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0; CREATE SCHEMA ...",
                code="store_unwritable",
            )
        if fsync != "on":
            log.warning("%s runs with fsync off: a power cut there may lose what was acknowledged", self.place)
        self._claim(me)

    def _claim(self, me: str) -> None:
        deadline = time.monotonic() + BUSY
        while not self.rows(f"SELECT pg_try_advisory_lock({_LOCK})")[0][0]:
            holders = self.rows(_HOLDER, (APPLICATION,))
            for pid, name, _ in holders:
                if name == me:
                    self.rows("SELECT pg_terminate_backend($1)", (pid,))
            if time.monotonic() > deadline:
                others = "".join(f" ({name} on {host})" for _, name, host in holders if name != me)
                raise words.taken(self.place, others) if others or not holders else words.lingering(self.place)
            time.sleep(0.05)

    def writer(self) -> str:
        """Who opened the store last, as opposed to having come back to it; "" in a fresh one.

        LeptonError when the schema is not ours or newer than we are.
        """
        if self.rows("SELECT to_regclass(quote_ident(current_schema()) || '.leptonai_store')")[0][0] is None:
            if self.rows(_TABLES)[0][0]:
                raise LeptonError(
                    f"{self.place} is a database of another program",
                    hint="name an empty database, or an empty schema (?options=-csearch_path%3Dleptonai)",
                    code="store_foreign",
                )
            return ""
        [(version, writer)] = self.rows("SELECT version, writer FROM leptonai_store")
        if version > len(MIGRATIONS):
            raise LeptonError(
                f"{self.place} has schema {version}; this version of leptonai knows {len(MIGRATIONS)}",
                hint="run the leptonai version that wrote it, or a newer one",
                code="store_newer",
            )
        return str(writer)

    def migrate(self, me: str) -> None:
        """The schema is up to date and ``me`` the writer, or nothing has changed."""
        fresh = not self.writer()
        try:
            with self.db.transaction():
                if fresh:
                    self.rows("CREATE TABLE leptonai_store (version BIGINT NOT NULL, writer TEXT NOT NULL)")
                    self.rows("INSERT INTO leptonai_store VALUES (0, '')")
                    self.rows(dialect.NUMBERS)
                [(version,)] = self.rows("SELECT version FROM leptonai_store")
                for script in MIGRATIONS[version:]:
                    for statement in dialect.migration(script):
                        self.rows(statement)
                self.rows("UPDATE leptonai_store SET version = $1, writer = $2", (len(MIGRATIONS), me))
        except psycopg.Error as e:
            raise words.said(e, self.place) from e

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Raises psycopg.Error; ``sql`` as PostgreSQL spells it."""
        self.since = time.monotonic()
        try:
            cursor = self.db.execute(sql, values)
            return cursor.fetchall() if cursor.description else []
        finally:
            self.since = None

    def many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self.since = time.monotonic()
        try:
            self.db.cursor().executemany(sql, rows)
        finally:
            self.since = None

    def hangs(self) -> bool:
        since = self.since
        return since is not None and time.monotonic() - since > PATIENCE

    def cut(self) -> None:
        """Whoever waits for an answer gets an error now. From any thread."""
        with contextlib.suppress(OSError):
            self._wire.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.db.close()
        self._wire.close()

    @contextlib.contextmanager
    def bounded(self) -> Iterator[None]:
        """What takes longer than PATIENCE is cut."""
        timer = threading.Timer(PATIENCE, self.cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
