"""Our SQL as PostgreSQL reads it. Pure: text in, text out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import count

from leptonai.store.schema import statements

# In the order of bytes, as SQLite sorts; a flag is a boolean, so that ``NOT open`` holds in both.
_TYPES = (
    (r"\b(live|open) INTEGER\b", r"\1 BOOLEAN"),
    (r"\bPRIMARY KEY AUTOINCREMENT\b", "PRIMARY KEY"),
    (r"\bINTEGER\b", "BIGINT"),
    (r"\bREAL\b", "DOUBLE PRECISION"),
    (r"\bTEXT\b", 'TEXT COLLATE "C"'),
)
_TRIGGER = re.compile(
    r"CREATE TRIGGER (?P<name>\w+) BEFORE (?P<verb>UPDATE|DELETE) ON (?P<table>\w+)\s*"
    r"(?:WHEN (?P<when>.*?)\s*)?BEGIN SELECT RAISE\(ABORT, '(?P<says>[^']*)'\); END;",
    re.IGNORECASE | re.DOTALL,
)
# A number above all that are there, as SQLite gives one. Nobody else writes, so none is given twice.
NUMBERS = """
CREATE FUNCTION next_seq() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF NEW.seq IS NULL THEN
    EXECUTE format('SELECT coalesce(max(seq), 0) + 1 FROM %I', TG_TABLE_NAME) INTO NEW.seq;
  END IF;
  RETURN NEW;
END $$
"""


@lru_cache(maxsize=512)
def numbered(sql: str) -> str:
    """``?`` one after another as ``$1``, ``$2`` ...: no statement of ours has one in a literal."""
    numbers = count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", sql)


def migration(script: str) -> Iterator[str]:
    """The statements of one of ``schema.MIGRATIONS``, one by one."""
    for statement in statements(script):
        text = statement.strip()
        if text.startswith("CREATE TABLE"):
            yield from _table(text)
        elif found := _TRIGGER.fullmatch(text):
            yield from _trigger(**found.groupdict())
        elif found := re.fullmatch(r"DROP TRIGGER (\w+);", text):
            yield f"DROP FUNCTION {found[1]}() CASCADE"
        else:
            assert not text.startswith(("CREATE TRIGGER", "DROP TRIGGER")), text
            yield text


def _table(text: str) -> Iterator[str]:
    name = text.split()[2]
    identified = "id INTEGER PRIMARY KEY AUTOINCREMENT" in text
    counted = "seq INTEGER PRIMARY KEY" in text
    for pattern, type in _TYPES:
        text = re.sub(pattern, type, text)
    yield text
    if identified:
        yield f"CREATE SEQUENCE {name}_ids"
    if counted:
        yield f"CREATE TRIGGER {name}_seq BEFORE INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION next_seq()"


def _trigger(name: str, verb: str, table: str, when: str | None, says: str) -> Iterator[str]:
    """A trigger's WHEN may not look at tables there, a function may. TRUNCATE fires no trigger of rows."""
    row = "OLD" if verb.upper() == "DELETE" else "NEW"
    refuse = f"RAISE EXCEPTION '{says}' USING ERRCODE = 'restrict_violation';"
    body = f"IF {when} THEN {refuse} END IF; RETURN {row};" if when else refuse
    yield (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS"
        f" $$ BEGIN {body} END $$"
    )
    yield f"CREATE TRIGGER {name} BEFORE {verb} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"
    if not when and verb.upper() == "UPDATE":
        yield f"CREATE TRIGGER {table}_truncate BEFORE TRUNCATE ON {table} EXECUTE FUNCTION {name}()"
