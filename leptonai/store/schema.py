"""The tables. Rows are only ever added; triggers refuse the rest, except for the deletions stated here.

- ``dials`` is compacted: an entry may go once a later entry of its path exists (an epoch once one as high exists), and
  an evict dies with its replica. Who turned which dial and why stays in the audit log.
- ``reviews``: one may go once the same reviewer has said something else of the same incident.
- ``feedback`` may lose its oldest line; ``proposals`` all but what waits for a decision; ``incidents`` former versions,
  and those that are closed and nobody acknowledged or reviewed.
- ``issues`` are counters, changed in place: what people decide of them stands in the audit log.
- ``events`` may lose its oldest line, and only that one, so that the log can be bounded.

Written as SQLite reads them; ``postgres.dialect`` says the same to PostgreSQL.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

APPLICATION = 0x6C657074  # "lept": the mark of whose file or database this is

_FIRST = """
CREATE TABLE revisions (
  service TEXT NOT NULL, number INTEGER NOT NULL, live INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (service, number));
CREATE TABLE verifications (
  service TEXT NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (service, number));
CREATE TABLE dials (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, service TEXT NOT NULL, revision INTEGER NOT NULL,
  path TEXT NOT NULL, value REAL NOT NULL, body TEXT NOT NULL);
CREATE INDEX dials_path ON dials (service, path, seq);
CREATE TABLE proposals (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL, service TEXT NOT NULL, status TEXT NOT NULL, at REAL NOT NULL,
  body TEXT NOT NULL);
CREATE INDEX proposals_id ON proposals (id, seq);
CREATE INDEX proposals_status ON proposals (status, seq);
CREATE INDEX proposals_at ON proposals (status, at);
CREATE INDEX proposals_service ON proposals (service, seq);
CREATE TABLE incidents (
  seq INTEGER PRIMARY KEY, id INTEGER NOT NULL, subject TEXT NOT NULL, open INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX incidents_id ON incidents (id, seq);
CREATE INDEX incidents_open ON incidents (open, id);
CREATE INDEX incidents_subject ON incidents (subject, id);
CREATE TABLE feedback (seq INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE events (
  seq INTEGER PRIMARY KEY, subject TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
  previous TEXT NOT NULL, hash TEXT NOT NULL);
CREATE INDEX events_subject ON events (subject, seq);
CREATE INDEX events_kind ON events (kind, seq);
CREATE TABLE tokens (seq INTEGER PRIMARY KEY, name TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX tokens_name ON tokens (name, seq);

CREATE TRIGGER dials_delete BEFORE DELETE ON dials
WHEN OLD.path NOT LIKE 'evict.%'
  AND NOT EXISTS (SELECT 1 FROM dials d WHERE d.service = OLD.service AND d.path = OLD.path AND d.seq > OLD.seq)
  AND NOT EXISTS (SELECT 1 FROM dials d WHERE d.service = OLD.service AND d.path = OLD.path AND d.seq <> OLD.seq
                  AND OLD.path LIKE '%.epoch' AND d.value >= OLD.value)
BEGIN SELECT RAISE(ABORT, 'dials is append-only: this entry is still in force'); END;
CREATE TRIGGER events_delete BEFORE DELETE ON events
WHEN OLD.seq > (SELECT min(seq) FROM events)
BEGIN SELECT RAISE(ABORT, 'events is append-only: only its oldest line may go'); END;
"""

_ALL = ("revisions", "verifications", "dials", "proposals", "incidents", "feedback", "events", "tokens")
_NO_UPDATE = "".join(
    f"CREATE TRIGGER {t}_update BEFORE UPDATE ON {t} BEGIN SELECT RAISE(ABORT, '{t} is append-only'); END;\n"
    for t in _ALL
)
_NO_DELETE = "".join(
    f"CREATE TRIGGER {t}_delete BEFORE DELETE ON {t} BEGIN SELECT RAISE(ABORT, '{t} is append-only'); END;\n"
    for t in _ALL
    if t not in ("dials", "events")
)

_ALERTS = """
CREATE TABLE silences (seq INTEGER PRIMARY KEY, id INTEGER NOT NULL, ends REAL NOT NULL, body TEXT NOT NULL);
CREATE INDEX silences_id ON silences (id, seq);
CREATE TABLE acks (seq INTEGER PRIMARY KEY, incident INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX acks_incident ON acks (incident, seq);
""" + "".join(
    f"CREATE TRIGGER {t}_{verb} BEFORE {verb} ON {t} BEGIN SELECT RAISE(ABORT, '{t} is append-only'); END;\n"
    for t in ("silences", "acks")
    for verb in ("update", "delete")
)

_REVIEWS = """
CREATE TABLE reviews (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, incident INTEGER NOT NULL, reviewer TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX reviews_incident ON reviews (incident, reviewer, seq);
CREATE TRIGGER reviews_update BEFORE UPDATE ON reviews BEGIN SELECT RAISE(ABORT, 'reviews is append-only'); END;
CREATE TRIGGER reviews_delete BEFORE DELETE ON reviews
WHEN NOT EXISTS (SELECT 1 FROM reviews r
                 WHERE r.incident = OLD.incident AND r.reviewer = OLD.reviewer AND r.seq > OLD.seq)
BEGIN SELECT RAISE(ABORT, 'reviews is append-only: this one is still in force'); END;
"""

_BOUNDED = """
CREATE TABLE issues (
  id INTEGER PRIMARY KEY AUTOINCREMENT, service TEXT NOT NULL, state TEXT NOT NULL, last REAL NOT NULL,
  terms TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX issues_service ON issues (service, id);
CREATE INDEX issues_last ON issues (last);
DROP TRIGGER feedback_delete;
CREATE TRIGGER feedback_delete BEFORE DELETE ON feedback
WHEN OLD.seq > (SELECT min(seq) FROM feedback)
BEGIN SELECT RAISE(ABORT, 'feedback is append-only: only its oldest line may go'); END;
DROP TRIGGER proposals_delete;
CREATE TRIGGER proposals_delete BEFORE DELETE ON proposals
WHEN OLD.status = 'pending' AND NOT EXISTS (SELECT 1 FROM proposals q WHERE q.id = OLD.id AND q.seq > OLD.seq)
BEGIN SELECT RAISE(ABORT, 'proposals is append-only: this one waits for a decision'); END;
DROP TRIGGER incidents_delete;
CREATE TRIGGER incidents_delete BEFORE DELETE ON incidents
WHEN NOT EXISTS (SELECT 1 FROM incidents j WHERE j.id = OLD.id AND j.seq > OLD.seq)
  AND (OLD.open OR EXISTS (SELECT 1 FROM acks WHERE incident = OLD.id)
       OR EXISTS (SELECT 1 FROM reviews WHERE incident = OLD.id))
BEGIN SELECT RAISE(ABORT, 'incidents is append-only: this one is open, acknowledged or reviewed'); END;
"""

# MIGRATIONS[n] brings a store from schema n to n + 1; a released one is never edited.
MIGRATIONS: tuple[str, ...] = (_FIRST + _NO_UPDATE + _NO_DELETE, _ALERTS, _REVIEWS, _BOUNDED)


def statements(script: str) -> Iterator[str]:
    """The script's statements one by one: sqlite3's executescript would commit the migration's transaction."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    assert not pending.strip(), f"unfinished statement in a migration: {pending}"
