"""The miner: lines to templates, and what holds for any text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.errors import SpecError
from leptonai.ops.logs import Miner, matches
from leptonai.ops.logs import miner as room


def mined(lines: list[str]) -> list[str]:
    """The template of each line as known at the end."""
    miner = Miner()
    miner.add_many(lines)
    miner.settle()
    return [miner.text(i) for i in miner.match(lines)]


@pytest.mark.parametrize(
    ("lines", "templates"),
    [
        (["took 5 ms", "took 7 ms"], ["took <*> ms"]),
        (["link ok", "link error"], ["link ok", "link error"]),  # few words: names of events
        ([f"user {n} logged in" for n in ["ann", "bob", "cid", "dan", "eve", "fay", "gus"]], ["user <*> logged in"]),
        (["interface en0 up", "interface en0 up"], ["interface en0 up"]),
        (["interface en0 up", "interface en1 up"], ["interface en<*> up"]),
        (["size 1 B, ok", "size 2.5 KB, ok"], ["size <*> <*>, ok"]),
        (["peers are 1", "peers are 1 2", "peers are 1 2 3"], ["peers are <*>"]),  # lists of any length
        (["lock tag=a ws=null", "lock tag=b ws=Work"], ["lock tag=<*> ws=<*>"]),
        (["a  b (command 7)"], ["a  b (command <*>)"]),  # white space stays
        (["", " "], [""]),
    ],
)
def test_table(lines: list[str], templates: list[str]) -> None:
    assert list(dict.fromkeys(mined(lines))) == templates


def test_ids_count_from_one_in_order_of_appearance() -> None:
    miner = Miner()
    assert [miner.add(x) for x in ("one thing", "another", "one thing", "another")] == [1, 2, 1, 2]
    assert [(t.id, t.count, t.text) for t in miner.templates] == [(1, 2, "one thing"), (2, 2, "another")]


def test_templates_of_different_lengths_become_one_under_the_older_id() -> None:
    miner = Miner()
    assert [miner.add(x) for x in ("peers are 1", "bye", "peers are 1 2")] == [1, 2, 1]


def test_an_id_given_before_two_events_became_one_means_the_one() -> None:
    miner = Miner()
    names = ["ann", "bob", "cid", "dan", "eve", "fay", "gus", "hal"]
    given = [miner.add(f"user {n} logged in") for n in names]
    miner.settle()
    assert len(set(given)) > 1
    assert {miner.resolve(i) for i in given} == {1}
    assert [t.count for t in miner.templates] == [8]


def test_a_line_looked_up_follows_its_event_into_another() -> None:
    miner = Miner()
    ways = ["in", "out", "up", "down", "left"]  # few: five events
    last = {
        way: [miner.add(f"moved {way} to {'abcdefghijkl'[i]} of the same house") for i in range(12)] for way in ways
    }
    assert len({ids[-1] for ids in last.values()}) == 5
    for i in range(12):
        miner.add(f"moved back to {'abcdefghijkl'[i]} of the same house")  # a sixth: one event
    miner.settle()
    in_force = {t.id for t in miner.templates}
    assert len(in_force) == 1
    assert {miner.add(f"moved {way} to l of the same house") for way in ways} == in_force


text = st.text(max_size=60) | st.text(st.sampled_from("ab01 =,.:/<*>\n\t-#"), max_size=40)
# few words in few places: events that become one, and one that becomes two
words = st.sampled_from([*"abcdefghij", "1", "x1", "x2", "k=v", "k=w", "(a)", "(b)"])
sentence = st.tuples(st.sampled_from(["up", "down"]), words, words).map(" ".join) | st.lists(words, max_size=4).map(
    " ".join
)
logs = st.lists(text, max_size=30) | st.lists(sentence, min_size=20, max_size=120)


@given(logs)
@settings(max_examples=150, deadline=None)
def test_every_line_matches_its_template_at_once_and_at_the_end(lines: list[str]) -> None:
    miner = Miner()
    for line in lines:
        id = miner.add(line)
        assert matches(miner.text(id), line)
        assert miner.add(line) == id  # the same line twice is the same event
    miner.settle()
    for line, id in zip(lines, miner.match(lines), strict=True):
        assert matches(miner.text(id), line)
    assert sum(t.count for t in miner.templates) == 2 * len(lines)
    assert len({t.text for t in miner.templates}) == len(miner.templates)


@given(logs, logs)
@settings(max_examples=100, deadline=None)
def test_a_loaded_dump_goes_on_as_the_miner_would_have(before: list[str], after: list[str]) -> None:
    miner = Miner()
    miner.add_many(before)
    other = Miner.load(miner.dump())
    assert other.dump() == miner.dump()
    assert other.add_many(after) == miner.add_many(after)
    assert other.templates == miner.templates
    assert other.dump() == miner.dump()


@given(logs)
@settings(max_examples=50, deadline=None)
def test_what_is_looked_up_is_what_would_be_found(lines: list[str]) -> None:
    miner, forgetful = Miner(), Miner()
    for line in lines:
        for memory in (forgetful._recall, forgetful._quick):
            memory.clear()
        forgetful._shown = {p.display: p for b in forgetful._buckets.values() for p in b.kept}
        assert miner.add(line) == forgetful.add(line)


@given(logs)
@settings(max_examples=50, deadline=None)
def test_batches_and_single_lines_are_the_same(lines: list[str]) -> None:
    one, many = Miner(), Miner()
    assert [one.add(x) for x in lines] == many.add_many(lines)
    assert one.dump() == many.dump()


def test_memory_is_bounded_and_what_no_longer_fits_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PATTERNS", 50)
    monkeypatch.setattr(room, "RECALL", 100)
    miner = Miner()
    letters = "abcdefghijklmnopqrstuvwxyz"
    lines = [" ".join(letters[(i * k) % 26] * (1 + i % 7) for k in range(1, 2 + i % 9)) for i in range(3000)]
    for line in lines:
        assert matches(miner.text(miner.add(line)), line)
    assert miner.overflow > 0
    assert miner._kept <= 50
    assert len(miner._recall) <= 100 and len(miner._quick) <= 100 and len(miner._shown) <= 150
    assert sum(len(b.extra) for b in miner._buckets.values()) <= 100
    assert "<*>" in {t.text for t in miner.templates}
    assert len(Miner.load(miner.dump()).dump()) == len(miner.dump())


def test_a_huge_line_is_cut_and_still_matched() -> None:
    miner = Miner()
    for line in ("x" * 100_000, "word " * 50_000, "x1 " * 3000, "=" * 20_000, ":" * 9000, "/a" * 9000, "a-" * 9000):
        id = miner.add(line)
        assert matches(miner.text(id), line)
        assert len(miner.text(id)) < 5000


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"version": 2}', b"\xff"])
def test_what_is_no_dump_is_refused(data: bytes) -> None:
    with pytest.raises(SpecError, match="no dump of a template miner"):
        Miner.load(data)
