"""One store into another: nothing is lost, no number moves, the audit log still checks."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from leptonai.admit import issue
from leptonai.cli.store import store as command
from leptonai.errors import Conflict, NotFound
from leptonai.store import Store
from leptonai.store.copy import copy, tables
from leptonai.testing.postgres import PostgresServer
from leptonai.types import Ack, Dial, DialChange, Feedback, Incident, Issue, Proposal, Review, Silence, Spec, Variant


def filled(place: str) -> Store:
    """One of everything, with holes where lines were dropped."""
    store = Store(place)
    for n in range(4):
        spec = Spec(name="digits", variants=(Variant(model="m"),), timeout=n + 1.0)
        store.append_revision("digits", spec, expected=n, by="human:ana", why="ä", at=0.1 * n)
        store.append_dials("digits", [Dial(path="main.weight", value=n / 3, owner="x", reason="", at=1.0)])
        store.record("a", "digits", {"text": "naïve \u0000 ☃", "n": n}, actor="human:ana", at=1e9 + n / 7)
        store.append_feedback(Feedback(about=str(n), by="x", at=0.0))
    store.verify("digits", 2, 5.0)
    change = DialChange(service="digits", set={"main.weight": 1.0})
    store.put_proposal(Proposal(id="p", change=change, by="x", why="", at=0.0, expires=1.0))
    made = store.put_incident(Incident(id=0, subject="s", severity="info", title="t", began=0.0, opened=0.0))
    for by in ("ana", "bob", "ana"):
        store.append_review(Review(incident=made.id, by=by, at=1.0, analysis="a", cause="oom"))
    store.append_ack(Ack(incident=made.id, by="ana", at=1.0))
    store.put_silence(Silence(id=0, matchers=(), starts=0.0, ends=9.0, by="x", comment="", made=0.0))
    store.put_token(issue("ana", "viewer", now=0.0)[1])
    for title in ("one", "two"):
        store.put_issue(Issue(id=0, service="digits", title=title, count=1, first=0.0, last=0.0), {"word": 1})
    store.drop_issue(2)
    return store


def dump(store: Store) -> dict[str, list[tuple[object, ...]]]:
    found = {}
    for table, (columns, key) in tables().items():
        sql = f"SELECT {', '.join(columns)} FROM {table} ORDER BY {', '.join(key)}"
        found[table] = [tuple(row) for row in store._rows(sql)]
    return found


def test_every_table_is_copied_there_and_back(tmp_path: Path, postgres: PostgresServer) -> None:
    source, middle, end = str(tmp_path / "store.db"), postgres.schema(), str(tmp_path / "back.db")
    with filled(source) as first, Store(middle) as second, Store(end) as third:
        counts = copy(first, second)
        assert all(counts.values()), "the test must fill every table"
        assert copy(second, third) == counts
        assert dump(first) == dump(second) == dump(third)
        for store in (second, third):
            assert store.check_chain() is None
            assert store.events() == first.events()
            assert store.services(0.0) == first.services(0.0)
            store.append_feedback(Feedback(about="next", by="x", at=0.0))
            assert store.feedback()[1] == 5, "numbers go on where they were"
            again = store.put_issue(Issue(id=0, service="d", title="t", count=1, first=0.0, last=0.0))
            assert again.id == 3, "2 was dropped"


def test_the_target_must_be_empty_and_is_left_as_it_was_else(tmp_path: Path, place: str) -> None:
    with filled(str(tmp_path / "source.db")) as source, Store(place) as target:
        target.append_feedback(Feedback(about="here", by="x", at=0.0))
        with pytest.raises(Conflict, match="not empty: there are feedback") as failed:
            copy(source, target)
        assert failed.value.code == "store_not_empty"
        assert (target.events(), len(target.feedback()[0])) == ([], 1)


def test_the_command_says_what_was_copied(tmp_path: Path, postgres: PostgresServer) -> None:
    source, target = str(tmp_path / "store.db"), postgres.schema()
    filled(source).close()
    done = CliRunner().invoke(command, ["copy", source, target], catch_exceptions=False)
    assert "4 revisions" in done.output
    assert "The audit log is whole." in done.output
    with pytest.raises(NotFound, match="there is no store"):
        CliRunner().invoke(command, ["copy", str(tmp_path / "none.db"), target], catch_exceptions=False)
    assert not (tmp_path / "none.db").exists()


def test_records_keep_their_identity_wherever_they_are_kept(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no token yet"), Store(tmp_path / "empty.db") as store:
        store.identity()
    with filled(str(tmp_path / "one.db")) as one, filled(str(tmp_path / "other.db")) as other:
        first = one.identity()
        assert len(first) == 32 and first != other.identity()
        one.put_token(issue("bob", "admin", now=2.0)[1])
        with Store(tmp_path / "two.db") as two:
            copy(one, two)
            assert two.identity() == one.identity() == first
