"""The store's promises, table by table."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from leptonai.admit import issue
from leptonai.errors import Conflict, LeptonError, NotFound, SpecError
from leptonai.store import Store
from leptonai.types import (
    Anomaly,
    Dial,
    DialChange,
    Feedback,
    Incident,
    Proposal,
    Revision,
    Scale,
    Spec,
    SpecChange,
    Variant,
)


def spec(timeout: float = 30.0, name: str = "digits") -> Spec:
    return Spec(name=name, variants=(Variant(model="m"),), timeout=timeout, scale=Scale(max=8))


def dial(path: str, value: float, expires: float | None = None) -> Dial:
    return Dial(path=path, value=value, owner="human:ana", reason="", at=0.0, expires=expires)


def incident(subject: str = "default/service/digits", closed: float | None = None, id: int = 0) -> Incident:
    return Incident(id=id, subject=subject, severity="critical", title="t", began=1.0, opened=2.0, closed=closed)


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    with Store(place) as opened:
        yield opened


def put(store: Store, wish: Spec | None, expected: int, key: str = "digits") -> Revision:
    return store.append_revision(key, wish, expected=expected, by="human:ana", why="", at=1.0)


def test_revisions_are_linear_and_a_stale_base_is_a_conflict_naming_both_numbers(store: Store) -> None:
    assert put(store, spec(1.0), 0).number == 1
    assert put(store, spec(2.0), 1).number == 2
    with pytest.raises(Conflict, match="from revision 1, but the head is 2") as failed:
        put(store, spec(3.0), 1)
    assert failed.value.detail == {"expected": 1, "head": 2}
    with pytest.raises(Conflict, match="from revision 0, but the head is 2"):
        put(store, spec(3.0), 0)
    assert [r.number for r in store.revisions("digits")] == [1, 2]
    with pytest.raises(SpecError, match="cannot become a revision of 'other'"):
        put(store, spec(), 0, key="other")


def test_a_deletion_ends_a_life_and_numbers_go_on_in_the_next(store: Store) -> None:
    put(store, spec(1.0), 0)
    store.verify("digits", 1, 5.0)
    store.append_dials("digits", [dial("main.replicas", 4), dial("main.epoch", 3)])
    assert put(store, None, 1).number == 2
    assert store.head("digits") is None
    assert store.heads() == []
    assert store.service("digits", 9.0) is None
    with pytest.raises(NotFound, match="no service 'digits' to delete"):
        put(store, None, 0)
    with pytest.raises(NotFound, match="no service 'digits'"):
        store.append_dials("digits", [dial("main.replicas", 1)])
    with pytest.raises(Conflict, match="from revision 2, but the head is 0"):
        put(store, spec(2.0), 2)
    assert put(store, spec(2.0), 0).number == 3
    assert store.last_verified("digits") is None, "what was deleted is not rolled back to"
    assert [d.path for d in store.dials("digits")] == ["main.epoch"], "a new life starts with no dial but the epochs"


def test_verified_revisions_are_found_below_a_bound(store: Store) -> None:
    for number in range(4):
        put(store, spec(number + 1.0), number)
    assert store.last_verified("digits") is None
    assert store.verify("digits", 1, 10.0).verified == 10.0
    store.verify("digits", 3, 11.0)
    assert store.verify("digits", 3, 99.0).verified == 11.0, "the first time counts"
    for before, number in ((None, 3), (4, 3), (3, 1)):
        found = store.last_verified("digits", before)
        assert found is not None and found.number == number
    assert store.last_verified("digits", before=1) is None
    with pytest.raises(NotFound, match="digits has no revision 7"):
        store.verify("digits", 7, 1.0)
    put(store, None, 4)
    with pytest.raises(SpecError, match="revision 5 of digits is a deletion"):
        store.verify("digits", 5, 1.0)


def test_the_models_to_keep_are_those_of_every_revision_and_of_pending_proposals(store: Store) -> None:
    def wish(model: str) -> Spec:
        return msgspec.structs.replace(spec(), variants=(Variant(model=model), Variant(name="b", model=model + "b")))

    put(store, wish("old"), 0)
    put(store, wish("new"), 1)
    put(store, None, 2)
    proposal = Proposal(id="p", change=SpecChange(spec=wish("next"), base=0), by="x", why="", at=0.0, expires=1.0)
    store.put_proposal(proposal)
    assert store.models() == {"old", "oldb", "new", "newb", "next", "nextb"}, "a deletion can be undone"
    store.put_proposal(msgspec.structs.replace(proposal, status="denied"))
    assert store.models() == {"old", "oldb", "new", "newb"}


def test_the_wish_is_the_head_and_the_dials_in_force(store: Store) -> None:
    put(store, spec(), 0)
    put(store, spec(name="b"), 0, key="b")
    store.append_dials(
        "digits", [dial("main.replicas", 3), dial("main.replicas", 7, expires=50.0), dial("evict.r1", 1)]
    )
    assert [(s.key, s.dials.variants["main"].replicas) for s in store.services(10.0)] == [("b", 1), ("digits", 7)]
    wish = store.service("digits", 60.0)
    assert wish is not None and wish.dials.variants["main"].replicas == 3 and wish.dials.evict == ("r1",)
    assert store.drop_evicts("digits", ["r0", "r1"]) == ["r1"]
    wish = store.service("digits", 60.0)
    assert wish is not None and wish.dials.evict == () and wish.dials.variants["main"].replicas == 3


def test_the_dials_log_does_not_grow_with_use(store: Store) -> None:
    put(store, spec(), 0)
    for i in range(50):
        store.append_dials("digits", [dial("main.replicas", i % 8), dial("main.epoch", i), dial("evict.r", i % 2)])
        store.append_dials("digits", [dial("main.weight", 0.5, expires=100.0 + i)])
    assert len(store._rows("SELECT * FROM dials WHERE service = 'digits'")) <= 4
    last = {d.path: d.value for d in store.dials("digits")}
    assert last == {"main.replicas": 1, "main.epoch": 49, "evict.r": 1, "main.weight": 0.5}


def test_all_dials_of_one_call_or_none(store: Store) -> None:
    put(store, spec(), 0)
    with store.transaction(), pytest.raises(SpecError, match="this dial cannot be stored"):
        store.append_dials("digits", [dial("main.replicas", 2), dial("main.weight", float("nan"))])
    assert store.dials("digits") == [], "even when somebody caught the error inside a larger transaction"


def test_a_transaction_that_fails_keeps_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction():
        put(store, spec(), 0)
        store.record("a", "digits", {}, actor="x", at=0.0)
        raise ZeroDivisionError
    assert (store.heads(), store.events()) == ([], [])
    put(store, spec(), 0)
    assert store.head("digits") is not None


def test_threads_take_turns_and_transactions_stay_whole(store: Store) -> None:
    def work(n: int) -> None:
        for i in range(20):
            with store.transaction():
                first = store.record("a", str(n), {"i": i}, actor="x", at=0.0)
                second = store.record("b", str(n), {"i": i}, actor="x", at=0.0)
                assert second.seq == first.seq + 1, "nobody writes between"

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(store.events()) == 240
    assert store.check_chain() is None


def test_the_latest_version_of_a_proposal_wins_and_filters_see_it(store: Store) -> None:
    def proposal(id: str, service: str, at: float) -> Proposal:
        change = DialChange(service=service, set={"main.weight": 1.0})
        return Proposal(id=id, change=change, by="human:ana", why="", at=at, expires=9.0)

    one, two = proposal("one", "digits", 1.0), proposal("two", "team/b", 2.0)
    for p in (one, two, msgspec.structs.replace(one, status="admitted")):
        store.put_proposal(p)
    assert store.proposal("one").status == "admitted"
    assert [p.id for p in store.proposals()] == ["one", "two"], "newest change first"
    assert [p.id for p in store.proposals(status="pending")] == ["two"]
    assert [p.id for p in store.proposals(service="digits")] == ["one"]
    assert [p.id for p in store.proposals(since=1.5)] == ["two"]
    assert [p.id for p in store.proposals(limit=1)] == ["one"]
    assert store._one("SELECT count(*) FROM proposals") == 3, "history is kept"
    with pytest.raises(NotFound, match="no proposal 'three'"):
        store.proposal("three")


def test_incidents_get_ids_and_versions(store: Store) -> None:
    first, second = store.put_incident(incident()), store.put_incident(incident("default/external/x"))
    assert (first.id, second.id) == (1, 2)
    closed = msgspec.structs.replace(first, closed=9.0)
    assert store.put_incident(closed) == store.put_incident(closed) == store.incident(1) == closed
    assert store._one("SELECT count(*) FROM incidents") == 3, "an equal version is not kept twice"
    assert [i.id for i in store.incidents()] == [2, 1]
    assert [i.id for i in store.incidents(open=True)] == [2]
    assert [i.id for i in store.incidents(open=False)] == [1]
    assert [i.id for i in store.incidents(subject="default/service/digits")] == [1]
    for id in (3, -1):
        with pytest.raises(NotFound, match=f"no incident {id}"):
            store.put_incident(incident(id=id))
    with pytest.raises(NotFound, match="no incident 7"):
        store.incident(7)


def test_what_could_not_be_read_back_is_refused_before_it_is_written(store: Store) -> None:
    nan = Anomaly(signal="s", labels={}, began=0, last=0, score=float("nan"))
    with pytest.raises(SpecError, match="this incident cannot be stored"):
        store.put_incident(msgspec.structs.replace(incident(), anomalies=(nan,)))
    with pytest.raises(SpecError, match="this event cannot be stored"):
        store.record("a", "b", {"x": object()}, actor="c", at=0.0)
    assert (store.incidents(), store.events()) == ([], [])


def test_feedback_is_read_in_pages(store: Store) -> None:
    assert store.feedback() == ([], 0)
    given = [Feedback(about=f"req-{i}", by="human:ana", at=float(i), label=i) for i in range(5)]
    assert [store.append_feedback(f) for f in given] == [1, 2, 3, 4, 5]
    assert store.feedback(limit=2) == ([(1, given[0]), (2, given[1])], 2)
    assert store.feedback(after=4) == ([(5, given[4])], 5)
    assert store.feedback(after=5) == ([], 5)
    with pytest.raises(SpecError, match="limit is -1"):
        store.feedback(limit=-1)


def test_events_are_filtered_and_ordered(store: Store) -> None:
    for i, kind in enumerate(("proposal.admitted", "proposal.denied", "proposals", "plan.start"), 1):
        event = store.record(kind, f"s{i % 2}", {"i": i}, actor="x", at=float(i))
        assert event == store.events(newest=True, limit=1)[0]
    assert [e.seq for e in store.events(kind="proposal.")] == [1, 2]
    assert [e.seq for e in store.events(kind="plan.start")] == [4]
    assert [e.seq for e in store.events(subject="s1")] == [1, 3]
    assert [e.seq for e in store.events(after=1, limit=2)] == [2, 3]
    assert [e.seq for e in store.events(newest=True, limit=2)] == [3, 4]


@pytest.mark.parametrize(
    ("sql", "broken"),
    [
        ("UPDATE events SET body = replace(body, 'ana', 'bob') WHERE seq = 3", 3),
        ("UPDATE events SET subject = 'other' WHERE seq = 2", 2),
        ("DELETE FROM events WHERE seq = 2", 2),
        ("UPDATE events SET hash = 'x', body = 'no event' WHERE seq = 5", 5),
        ("UPDATE events SET seq = 9 WHERE seq = 5", 5),
    ],
)
def test_the_chain_shows_where_the_audit_log_was_edited(place: str, sql: str, broken: int) -> None:
    with Store(place) as store:
        for i in range(5):
            store.record("a", "digits", {"i": i}, actor="human:ana", at=float(i))
        assert store.check_chain() is None
        for name in ("events_update", "events_delete"):
            store._rows(f"DROP TRIGGER {name}" + (" ON events" if place.startswith("postgres") else ""))
        store._rows(sql)
    with Store(place) as store:
        assert store.check_chain() == broken


def test_the_audit_log_is_bounded_from_its_oldest_end(place: str) -> None:
    with Store(place, audit_keep=500) as store:
        with store.transaction():
            for _ in range(2100):
                store.record("a", "digits", {}, actor="x", at=0.0)
        assert [e.seq for e in store.events(limit=1)] == [1501]
        assert store.check_chain() is None


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE revisions SET body = ''",
        "DELETE FROM revisions",
        "REPLACE INTO revisions SELECT * FROM revisions",
        "DELETE FROM verifications",
        "DELETE FROM dials WHERE path = 'main.replicas'",
        "UPDATE dials SET value = 9",
        "DELETE FROM proposals",
        "DELETE FROM incidents",
        "DELETE FROM feedback WHERE seq = 2",
        "UPDATE feedback SET body = ''",
        "DELETE FROM events WHERE seq = 2",
        "UPDATE tokens SET body = ''",
    ],
)
def test_triggers_refuse_to_rewrite_history(place: str, store: Store, sql: str) -> None:
    if place.startswith("postgres"):
        sql = sql.replace("REPLACE INTO revisions SELECT * FROM revisions", "TRUNCATE revisions")  # has no REPLACE
    put(store, spec(), 0)
    store.verify("digits", 1, 1.0)
    store.append_dials("digits", [dial("main.replicas", 2)])
    change = DialChange(service="digits", set={"main.weight": 1.0})
    store.put_proposal(Proposal(id="p", change=change, by="x", why="", at=0.0, expires=1.0))
    store.put_incident(incident())
    for _ in range(2):
        store.append_feedback(Feedback(about="r", by="x", at=0.0))
    store.put_token(issue("ana", "viewer", now=0.0)[1])
    for _ in range(2):
        store.record("a", "digits", {}, actor="x", at=0.0)
    with pytest.raises(LeptonError, match="append-only"):
        store._rows(sql)
    assert store.revisions("digits")[0].verified == 1.0


def test_a_token_is_found_by_its_secret_while_it_is_valid(store: Store) -> None:
    secret, token = issue("ana", "operator", ("team",), ttl=10.0, now=100.0)
    store.put_token(token)
    store.put_token(issue("bob", "viewer", now=100.0)[1])
    assert [t.name for t in store.tokens()] == ["ana", "bob"]
    assert store.token_by_secret(secret, 105.0) == token
    assert store.token_by_secret(secret, 110.0) is None, "expired"
    for wrong in ("", secret[:-1], token.secret_sha256, "\udcff"):
        assert store.token_by_secret(wrong, 105.0) is None
    store.put_token(msgspec.structs.replace(token, revoked=True))
    assert store.token_by_secret(secret, 105.0) is None
    assert secret not in str(store._rows("SELECT * FROM tokens"))
