"""One store into another, line for line: from a file into PostgreSQL, or back."""

from __future__ import annotations

import re

from leptonai.errors import Conflict, LeptonError
from leptonai.store.schema import MIGRATIONS
from leptonai.store.store import Store

PAGE = 2000  # rows at a time
_FLAGS = ("live", "open")  # numbers in SQLite, booleans in PostgreSQL
_TABLE = re.compile(r"CREATE TABLE (\w+) \(\s*(.*?)\);", re.DOTALL)
_KEY = re.compile(r",\s*PRIMARY KEY \(([\w, ]+)\)")


def tables() -> dict[str, tuple[list[str], list[str]]]:
    """name -> its columns, and those of its key."""
    found = {}
    for name, inside in _TABLE.findall("".join(MIGRATIONS)):
        key = _KEY.search(inside)
        columns = [column.split()[0] for column in _KEY.sub("", inside).split(",")]
        found[name] = columns, key[1].split(", ") if key else columns[:1]
    return found


def copy(source: Store, target: Store) -> dict[str, int]:
    """Everything of ``source`` is in ``target``, numbers and hashes included; returns the rows of each table.

    In one transaction, after which the audit log of both was checked to say the same. Raises Conflict
    ``store_not_empty`` unless ``target`` is empty.
    """
    counts = {}
    with source.alone(), target.transaction():
        for table in tables():
            if target._rows(f"SELECT 1 FROM {table} LIMIT 1"):  # noqa: S608 - names are ours
                raise Conflict(
                    f"{target.place} is not empty: there are {table}",
                    hint="copy into an empty database or a file that does not exist yet",
                    code="store_not_empty",
                )
        for table, (columns, key) in tables().items():
            counts[table] = _table(source, target, table, columns, key)
        target._engine.skip_ids("issues", source._engine.last_id("issues"))
        if (was := source.check_chain()) != (now := target.check_chain()):
            raise LeptonError(
                f"the audit log of {target.place} is broken at {now}, that of the source at {was}: nothing was kept",
                hint="is somebody else writing there?",
            )
    return counts


def _table(source: Store, target: Store, table: str, columns: list[str], key: list[str]) -> int:
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    order = ", ".join(key)
    places = [columns.index(column) for column in key]
    flags = [n for n, column in enumerate(columns) if column in _FLAGS]
    last: tuple[object, ...] = ()
    count = 0
    while True:
        after = f"WHERE ({order}) > ({', '.join('?' * len(key))})" if last else ""
        select = f"SELECT {names} FROM {table} {after} ORDER BY {order} LIMIT {PAGE}"  # noqa: S608 - names are ours
        rows = [list(row) for row in source._rows(select, last)]
        if not rows:
            return count
        for row in rows:
            for n in flags:
                row[n] = bool(row[n])
        target._each(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608 - names are ours
        last = tuple(rows[-1][n] for n in places)
        count += len(rows)
