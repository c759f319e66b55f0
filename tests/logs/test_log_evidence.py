"""A log that changes around an onset becomes evidence, what did not change does not; nothing steers a terminal."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.cli.logs import moment, tell
from leptonai.errors import SpecError
from leptonai.ops.evidence import gather
from leptonai.ops.logs.handoff import Handoff
from leptonai.ops.logs.miner import Miner
from leptonai.ops.logs.parse import clean, decode, record, severity
from leptonai.ops.logs.pipeline import Pipeline
from leptonai.ops.logs.query import level_number
from leptonai.ops.logs.shifts import Shift
from leptonai.ops.scene import Scene
from leptonai.settings import Settings
from leptonai.types import Dials, LogEntry, LogRecord, Service, Spec, Variant, VariantDials

NOW = 1_700_000_000.0


def told(home: Path, before: list[str], after: list[str], seconds: int = 60) -> tuple[Shift, ...]:
    """Shifts of a log that has ``before`` each second for ``seconds``, then ``after`` for ten."""
    sink = Handoff(10_000)
    pipeline = Pipeline(home, Settings(), sink, lambda: NOW)
    for n in range(seconds + 10):
        for text in before if n < seconds else after:
            body = text.replace("N", str(n))
            sink.put([LogRecord(at=NOW + n, source={"service": "till"}, body=body, severity=severity(body))])
        pipeline.step(NOW + n)
    found = pipeline.shifts("till", NOW + seconds, NOW + seconds + 9)
    pipeline.close()
    return found


def test_new_lines_more_lines_and_silence_are_told_errors_first(tmp_path: Path) -> None:
    usual = ["sale N done"] * 5 + ["scanned item N"] * 4 + ["drawer N opened"]
    found = told(
        tmp_path, usual, ["sale N done"] * 30 + ["drawer N opened", "ERROR card reader N of ana@example.org is gone"]
    )
    assert [s.kind for s in found] == ["new", "more", "silent"]
    assert found[0].severity == 17 and found[0].count == 10
    assert "example" not in found[0].sample + found[0].template and "<email:" in found[0].sample
    assert found[1].template == "sale <*> done" and found[2].template == "scanned item <*>"
    assert found[1].rate > 3 * found[1].usual and found[2].rate < found[2].usual


def test_the_same_log_tells_nothing_and_a_young_one_cannot(tmp_path: Path) -> None:
    usual = ["sale N done"] * 5
    assert told(tmp_path / "same", usual, usual) == ()
    assert told(tmp_path / "young", usual, ["ERROR N"], seconds=10) == ()


def test_shifts_become_sentences_with_their_numbers() -> None:
    spec = Spec(name="till", variants=(Variant(model="sha256:" + "0" * 64),))
    service = Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=1)}), revision=1)
    shift = Shift(
        kind="new", template="reader <*> is gone", sample="reader 7 is gone", severity=17, count=12, rate=1.2,
        usual=0.0, at=NOW,
    )  # fmt: skip
    facts = gather(Scene(service=service, revisions=(), onset=NOW, now=NOW + 10, logs=(shift,)))
    (found,) = [e for e in facts.evidence if e.kind == "log_new"]
    assert found.text == (
        "The log has an error line that it never had before, 12 times since the onset: 'reader <*> is gone', "
        "such as 'reader 7 is gone'."
    )
    assert found.at == NOW


@given(st.binary(max_size=300))
def test_no_bytes_steer_a_terminal_or_break_the_miner(line: bytes) -> None:
    """Whatever a process writes: one line, printable but for the tab, and it has a template."""
    text = decode(line.replace(b"\n", b" "))
    found = record(text, {"service": "x"}, NOW)
    shown = tell(LogEntry(seq=1, at=found.at, service="x", body=found.body))
    for part in (text, found.body, shown):
        assert all(
            c.isprintable() or c == "\t" or (ord(c) > 159 and c.isspace()) or ord(c) > 0x2100 or c in "\xad"
            for c in part
        )
        assert not any((ord(c) < 32 and c != "\t") or 127 <= ord(c) < 160 for c in part)
    miner = Miner()
    assert miner.text(miner.add(found.body)) is not None


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists),
        max_size=6,
    )
)
def test_any_json_object_is_a_record_or_a_line(found: dict[str, object]) -> None:
    import json

    made = record(json.dumps({**found, "message": "hi"}), {"service": "x"}, NOW)
    assert made.body.startswith("hi") or "message" in made.body
    assert NOW - 8 * 86400 <= made.at <= NOW + 600 and 0 <= made.severity <= 24


@pytest.mark.parametrize(
    ("line", "body", "level", "at"),
    [
        ("2023-11-14T22:13:10Z WARN low", "WARN low", 13, NOW - 10),
        ("2023-11-14 22:13:10,5 INFO no zone: ours counts", "INFO no zone: ours counts", 9, NOW),
        ("[2023-11-14 22:13:20.123][7][critical][main] died", "[7][critical][main] died", 18, NOW),
        ("1999-01-01T00:00:00Z ancient", "ancient", 0, NOW),
        ('{"msg":"a","lvl":"fatal","ts":1699999990,"n":1}', "a n=1", 21, NOW - 10),
        ('{"event":"x","level":17,"trace_id":"' + "a" * 32 + '"}', "x", 17, NOW),
        ('{"no":"message"}', '{"no":"message"}', 0, NOW),
        ('{"msg": broken}', '{"msg": broken}', 0, NOW),
        ("plain", "plain", 0, NOW),
    ],
)
def test_times_levels_and_json_are_read(line: str, body: str, level: int, at: float) -> None:
    found = record(line, {"service": "x"}, NOW)
    assert (found.body, found.severity, found.at) == (body, level, at)


def test_binary_colours_and_huge_lines() -> None:
    assert decode(b"\x00\x01\x02\xff\xfe" * 100) == "<no text, 500 bytes>"
    assert decode(b"\x1b[31mred\x1b[0m \x1b]0;title\x07") == "red \\x1b]0;title\\x07"
    assert decode(b"x" * 100_000).endswith(" ... 36,000 bytes cut")
    assert clean("a\u202eb") == "a\\u202eb"


def test_moments_and_levels() -> None:
    assert moment("15m") == pytest.approx(time.time() - 900, abs=5)
    assert moment("2023-11-14T22:13:20+00:00") == NOW and moment("1700000000") == NOW and moment(None) == 0
    with pytest.raises(SpecError, match="yesterday"):
        moment("yesterday")
    assert level_number("warn") == level_number("WARNING") == 13 and level_number("") == 0
    with pytest.raises(SpecError, match="loud"):
        level_number("loud")
