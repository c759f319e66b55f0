"""What people say: reviews of incidents, feedback of users, issues made of complaints; and how much of it is kept."""

from __future__ import annotations

from typing import Any

import msgspec

from leptonai.errors import NotFound
from leptonai.store.database import Database
from leptonai.store.spell import limit_of, read, spell
from leptonai.types import Feedback, Issue, Key, Review

MOST_DROPPED = 1000  # rows of one transaction of ``tidy``: a long one would keep writers waiting


class Said(Database):
    """The part of the store that people fill."""

    # --- reviews ---------------------------------------------------------------------------------------------------

    def append_review(self, review: Review) -> int:
        """Append and return its sequence number, rising from 1. NotFound when there is no such incident.

        What the same reviewer said of the incident before is dropped: the audit log tells of it.
        """
        with self.transaction():
            if self._one("SELECT 1 FROM incidents WHERE id = ?", (review.incident,)) is None:
                raise NotFound(f"no incident {review.incident}", hint="leptonai incidents lists them")
            body, _ = spell(review)
            self._insert("reviews", incident=review.incident, reviewer=review.by, body=body)
            seq = self.last_review()
            before = "incident = ? AND reviewer = ? AND seq < ?"
            self._rows(f"DELETE FROM reviews WHERE {before}", (review.incident, review.by, seq))  # noqa: S608
        return seq

    def reviews(self, incident: int) -> list[Review]:
        """The newest of each reviewer of one incident, oldest first."""
        rows = self._rows("SELECT body FROM reviews WHERE incident = ? ORDER BY seq", (incident,))
        return [read(body, Review) for (body,) in rows]

    def reviews_after(self, after: int = 0, limit: int = 1000) -> tuple[list[tuple[int, Review]], int]:
        """``(items, next)``: the oldest ``limit`` with a number above ``after``, and the ``after`` to go on from."""
        rows = self._rows("SELECT seq, body FROM reviews WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit_of(limit)))
        return [(seq, read(body, Review)) for seq, body in rows], rows[-1][0] if rows else after

    def last_review(self) -> int:
        """The number of the newest review; 0: there is none."""
        return self._one("SELECT max(seq) FROM reviews") or 0

    # --- feedback --------------------------------------------------------------------------------------------------

    def append_feedback(self, feedback: Feedback) -> int:
        """Append and return its sequence number, rising from 1."""
        with self.transaction():
            self._insert("feedback", body=spell(feedback)[0])
            return int(self._one("SELECT max(seq) FROM feedback"))

    def feedback(self, after: int = 0, limit: int = 1000) -> tuple[list[tuple[int, Feedback]], int]:
        """``(items, next)``: the oldest ``limit`` with a number above ``after``, and the ``after`` to go on from."""
        rows = self._rows("SELECT seq, body FROM feedback WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit_of(limit)))
        return [(seq, read(body, Feedback)) for seq, body in rows], rows[-1][0] if rows else after

    # --- issues ----------------------------------------------------------------------------------------------------

    def put_issue(self, issue: Issue, terms: dict[str, int] | None = None) -> Issue:
        """Keep the issue in place of its former self and return it; id 0 is given the next id.

        ``terms``: in how many of its texts each word stands; None leaves them as they are. Unlike all else an issue is
        not kept in versions: what people decide of it stands in the audit log. NotFound for an unknown id.
        """
        with self.transaction():
            if issue.id == 0:
                issue = msgspec.structs.replace(issue, id=self._engine.last_id("issues") + 1)
                self._engine.skip_ids("issues", issue.id)
                columns = {"id": issue.id, "service": issue.service, "terms": msgspec.json.encode(terms or {}).decode()}
                self._insert("issues", **columns, state=issue.state, last=issue.last, body=spell(issue)[0])
                return issue
            self.issue(issue.id)
            values: tuple[Any, ...] = (issue.state, issue.last, spell(issue)[0])
            self._rows("UPDATE issues SET state = ?, last = ?, body = ? WHERE id = ?", (*values, issue.id))
            if terms is not None:
                text = msgspec.json.encode(terms).decode()
                self._rows("UPDATE issues SET terms = ? WHERE id = ?", (text, issue.id))
        return issue

    def issue(self, id: int) -> Issue:
        """Raises NotFound."""
        body = self._one("SELECT body FROM issues WHERE id = ?", (id,))
        if body is None:
            raise NotFound(f"no issue {id}", hint="leptonai issues lists them")
        return read(body, Issue)

    def issues(self, service: Key | None = None, state: str | None = None, limit: int = 200) -> list[Issue]:
        """The newest complaint first."""
        tests = [("service = ?", service), ("state = ?", state)]
        where = " AND ".join(["TRUE", *(test for test, value in tests if value is not None)])
        values = [value for _, value in tests if value is not None]
        sql = f"SELECT body FROM issues WHERE {where} ORDER BY last DESC, id DESC LIMIT ?"  # noqa: S608 - ours
        return [read(body, Issue) for (body,) in self._rows(sql, (*values, limit_of(limit)))]

    def issue_terms(self, service: Key) -> list[tuple[Issue, dict[str, int]]]:
        """The issues of a service with their words, by id."""
        rows = self._rows("SELECT body, terms FROM issues WHERE service = ? ORDER BY id", (service,))
        return [(read(body, Issue), msgspec.json.decode(terms, type=dict[str, int])) for body, terms in rows]

    def drop_issue(self, id: int) -> None:
        self._rows("DELETE FROM issues WHERE id = ?", (id,))

    # --- how much is kept ------------------------------------------------------------------------------------------

    def tidy(self, feedback: int, proposals: int, incidents: int, before: float) -> dict[str, int]:
        """Drop the oldest of what is past these numbers or was made before ``before``; how many rows of each went.

        Kept whatever the numbers say: pending proposals; incidents that are open, acknowledged or reviewed. At most
        MOST_DROPPED rows of each go in one call.
        """
        with self.transaction():
            newest = self._one("SELECT max(seq) FROM feedback") or 0
            rows = self._rows("SELECT seq, body FROM feedback ORDER BY seq LIMIT ?", (MOST_DROPPED,))
            said = [s for s, b in rows if s <= newest - feedback or read(b, Feedback).at < before]
            self._each("DELETE FROM feedback WHERE seq = ?", [(s,) for s in said])  # oldest first: only that one may go
            decided = "EXISTS (SELECT 1 FROM proposals q WHERE q.id = p.id AND q.seq > p.seq) OR status <> 'pending'"
            many = self._one("SELECT count(*) FROM proposals") - proposals
            oldest = "SELECT seq FROM proposals ORDER BY seq LIMIT ?"
            past = (
                f"SELECT seq FROM proposals p WHERE ({decided}) AND (at < ? OR seq IN ({oldest})) ORDER BY seq LIMIT ?"  # noqa: S608
            )
            found = self._rows(past, (before, max(0, many), MOST_DROPPED))
            self._each("DELETE FROM proposals WHERE seq = ?", found)
            ids = self._rows(
                "SELECT id FROM incidents i WHERE NOT open AND id <= ? AND id < (SELECT max(id) FROM incidents)"
                " AND NOT EXISTS (SELECT 1 FROM incidents j WHERE j.id = i.id AND j.seq > i.seq)"
                " AND NOT EXISTS (SELECT 1 FROM acks WHERE incident = i.id)"
                " AND NOT EXISTS (SELECT 1 FROM reviews WHERE incident = i.id) ORDER BY id LIMIT ?",
                ((self._one("SELECT max(id) FROM incidents") or 0) - incidents, MOST_DROPPED),
            )
            self._each("DELETE FROM incidents WHERE id = ?", ids)
        return {"feedback": len(said), "proposals": len(found), "incidents": len(ids)}
