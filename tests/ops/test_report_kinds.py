"""Every kind of evidence that operations record is said in Chinese, and not only quoted."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import leptonai.ops
from leptonai.ops.evidence import READING
from leptonai.ops.report import tell
from leptonai.types import Cause, Evidence, Incident

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
    story = tell(
        Incident(
            id=1, subject="default/service/digits", severity="info", title="x", began=1.0, opened=2.0, diagnosed=2.0,
            evidence=(fact,), causes=(Cause(name="unknown", subject="digits", confidence=1.0, evidence=("e1",)),),
        ), "zh",
    )  # fmt: skip
    (said,) = {s.text for section in story.sections for s in section.sentences if s.evidence == ("e1",)}
    assert not said.startswith("原始记录"), f"{kind} is only quoted"
