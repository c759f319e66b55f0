"""Everything that operations record in words of ours is said in Chinese, and not only quoted."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import leptonai.ops
from leptonai.ops import incidents as book
from leptonai.ops.diagnosis.causes import CAUSES
from leptonai.ops.diagnosis.files import shipped_book
from leptonai.ops.evidence import READING
from leptonai.ops.remedies import load_remedies
from leptonai.ops.report import languages, tell
from leptonai.ops.report.voice import voice
from leptonai.types import Anomaly, Cause, Evidence, Incident

ROOT = Path(leptonai.ops.__file__).parent
SHIFTS = ("log_new", "log_more", "log_silent")  # f"log_{shift.kind}"


def recorded() -> set[str]:
    """The kinds that the source names: third of ``notes.add``, second of ``note``, those given to ``Evidence``."""
    found = {READING, *SHIFTS}
    for path in ROOT.rglob("*.py"):
        if "report" in path.parts:
            continue
        for call in [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]:
            name = ast.unparse(call.func)
            place = {"notes.add": 2, "book.note": 1, "note": 1}.get(name)
            parts = [call.args[place]] if place is not None and len(call.args) > place + 1 else []
            parts += [k.value for k in call.keywords if k.arg == "kind"] if name == "Evidence" else []
            found |= {p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)}
    return found


def test_the_kinds_are_found_in_the_source() -> None:
    assert {
        "change",
        "exit",
        "silence",
        "memory",
        "compute",
        "labels",
        "host",
        "anomaly",
        "action",
        READING,
    } <= recorded()


@pytest.mark.parametrize("kind", sorted(recorded()))
def test_each_kind_is_said_in_chinese(kind: str) -> None:
    fact = Evidence(id="e1", kind=kind, at=10.0, text="It is so.", data={"about": "replica", "subject": "r1"})
    assert not said(fact).startswith("原始记录"), f"{kind} is only quoted"


def said(fact: Evidence) -> str:
    """How one fact is said in Chinese."""
    found = incident(
        diagnosed=2.0, evidence=(fact,),
        causes=(Cause(name="unknown", subject="digits", confidence=1.0, evidence=("e1",)),),
    )  # fmt: skip
    sections = tell(found, "zh").sections
    (text,) = {s.text for section in sections for s in section.sentences if s.evidence == ("e1",)}
    return text


def incident(**more: Any) -> Incident:
    known = {"id": 1, "subject": "default/service/digits", "severity": "info", "title": "It is so"}
    return Incident(**(known | {"began": 1.0, "opened": 2.0} | more))


@pytest.mark.parametrize("name", sorted(shipped_book().signals))
def test_the_reading_of_each_signal_that_ships_is_said_in_chinese(name: str) -> None:
    text = shipped_book().signals[name].text.format(value=0.25, before=0.01, subject="r1")
    fact = Evidence(id="e1", kind=READING, at=10.0, text=text, data={"subject": "r1", name: 0.25})
    assert "原始记录" not in said(fact)


def test_a_reading_of_a_signal_of_one_s_own_is_quoted() -> None:
    fact = Evidence(id="e1", kind=READING, at=10.0, text="The store is 9 s old.", data={"subject": "r1", "age": 9.0})
    assert "原始记录：“The store is 9 s old.”" in said(fact)


@pytest.mark.parametrize("name", sorted(shipped_book().opens))
def test_each_condition_that_ships_is_said_in_chinese_and_names_the_incident(name: str) -> None:
    fact = Evidence(id="e1", kind="condition", at=10.0, text="It is so (x 1).", data={"condition": name})
    assert "原始记录" not in said(fact)
    first = Anomaly(signal="declared", labels={"service": "digits", "condition": name}, began=1.0, last=2.0, score=1.0)
    assert "It is so" not in tell(incident(anomalies=(first,)), "zh").title


def closings() -> list[str]:
    """Each reason to close that the source names: ``Close(why="...")`` and the fourth argument of ``book.close``."""
    found = []
    for path in ROOT.rglob("*.py"):
        for call in [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]:
            name = ast.unparse(call.func)
            parts = [k.value for k in call.keywords if k.arg == "why"] if name == "Close" else []
            parts += call.args[3:4] if name == "book.close" else []
            found += [p.value for p in parts if isinstance(p, ast.Constant)]
    return sorted(set(found))


def test_each_reason_to_close_is_said_in_chinese() -> None:
    assert {"repaired", "it is as it used to be"} <= set(closings())
    for why in closings():
        closed = book.close(incident(), 10.0, "", why, 9.0)
        assert "原始记录" not in said(closed.evidence[-1]), why


@pytest.mark.parametrize("language", languages())
def test_each_cause_and_remedy_that_ships_has_a_name(language: str) -> None:
    terms = voice(language).terms
    assert load_remedies().keys() <= terms.remedies.keys()
    assert CAUSES.keys() <= terms.causes.keys() and CAUSES.keys() <= terms.meanings.keys()


def test_a_change_and_a_past_incident_are_told_from_their_values() -> None:
    values = {"change_age_seconds": 8.25, "revision": "2", "by": "human:ana", "why": "the release", "subject": "digits"}
    change = Evidence(id="e1", kind="change", at=10.0, text="Revision 2 was made 8 s before the onset.", data=values)
    assert said(change) == "版本 2 由 human:ana 发布（说明：“the release”），时间在故障开始前 8.2 秒。"
    values = {"incident": 3, "likeness": 0.9, "cause": "memory_leak", "remedy": "evict", "verdict": "effective"}
    past = Evidence(id="e1", kind="similar", at=10.0, text="Incident 3 looked like it.", data=values)
    assert said(past) == "与事件 3 相似，当时的原因是：内存泄漏；处置：更换副本（有效）。"


def test_chinese_numerals_take_their_measure_word_without_a_space() -> None:
    zh = voice("zh")
    assert [zh.count(n, "个") for n in (12, 34_567, 2e8)] == ["12 个", "3.46 万个", "2.00 亿个"]
    assert zh.number(2.5, "倍") == "2.50 倍" and zh.number(34_567, "次") == "3.46 万次"


def test_the_classifiers_are_told_by_voter_in_chinese() -> None:
    votes = {"svm": {"unknown": 0.0021, "hung_replica": 0.9912}, "rules": {"hung_replica": 1.0}}
    text = "Classifiers trained on labelled incidents say svm: hung_replica 99%, unknown 0%."
    fact = Evidence(id="e1", kind="classifiers", at=10.0, text=text, data={"votes": votes, "counts": False})
    told = said(fact)
    assert "支持向量机：副本无响应 99%" in told and "仅供参考" in told and "rules" not in told
