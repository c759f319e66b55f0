"""Reports: every sentence rests on recorded evidence, in any state of an incident; what others wrote is harmless."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from leptonai.errors import NotFound, SpecError, TelemetryError
from leptonai.ops.report import Section, Seen, Sentence, check, languages, report, tell
from leptonai.types import Action, Cause, Evidence, Incident, Series

AT = 1_700_000_000.0


def fact(n: int, kind: str = "exit", text: str = "Replica r1 was ended by SIGKILL.") -> Evidence:
    return Evidence(id=f"e{n}", kind=kind, at=AT, text=text)


def incident(**more: Any) -> Incident:
    known: dict[str, Any] = {
        "id": 7,
        "subject": "default/service/digits",
        "severity": "warning",
        "title": "Replica r1 was killed",
        "began": AT,
        "opened": AT + 1.5,
        "diagnosed": AT + 1.5,
        "mitigated": AT + 4,
        "closed": AT + 7,
        "evidence": (fact(1), fact(2, "host", "The machine is idle."), fact(3, "closed", "Serve replaced it; closed.")),
        "causes": (Cause(name="replica_killed", subject="r1", confidence=0.95, evidence=("e1",)),),
        "actions": (Action(remedy="none: reconciled", proposal=None, at=AT + 4, verdict="effective"),),
    }
    return Incident(**(known | more))


def test_the_text_says_what_happened_why_and_what_was_done() -> None:
    text = report(incident())
    assert "Incident 7: Replica r1 was killed" in text
    assert "was noticed 1.5 s later" in text and "It was over 4.0 s after it began." in text
    assert "a replica was killed from outside: r1, with 95% confidence. [c1] [e1]" in " ".join(text.split())
    assert "Serve replaced it; closed. [e3]" in text and "The machine is idle. [e2]" in text


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"closed": None, "mitigated": None},
        {"closed": None, "escalated": AT + 30, "evidence": (fact(1), fact(2, "escalated", "A person is needed."))},
        {"causes": (), "diagnosed": None},
        {"causes": (Cause(name="unknown", subject="digits", confidence=1.0, evidence=("e1", "e2")),)},
        {"causes": (), "evidence": (), "actions": (), "closed": None, "diagnosed": None},
        {"causes": (*incident().causes, Cause(name="hung_replica", subject="r2", confidence=0.5, evidence=("e2",)))},
    ],
)
@pytest.mark.parametrize("format", ["text", "markdown", "html", "json"])
@pytest.mark.parametrize("language", languages())
def test_every_state_of_an_incident_can_be_told(more: dict[str, Any], format: str, language: str) -> None:
    found = incident(**more)
    assert report(found, format, language).endswith("\n")
    story = tell(found, language)
    known = {f.id for f in story.facts}
    for section in story.sections:
        assert section.sentences, section.title
        for sentence in section.sentences:
            assert sentence.evidence and set(sentence.evidence) <= known


def test_the_json_holds_sentences_with_their_evidence() -> None:
    whole = json.loads(report(incident(), "json"))
    assert whole["seconds"] == {"detect": 1.5, "diagnose": 1.5, "recover": 4.0}
    assert {e["id"] for e in whole["evidence"]} == {"e1", "e2", "e3", "t1", "c1", "a1"}


def test_a_claim_without_a_record_is_refused() -> None:
    with pytest.raises(TelemetryError, match="e9, which is not recorded"):
        tell(incident(causes=(Cause(name="replica_killed", subject="r1", confidence=0.9, evidence=("e9",)),)))
    story = tell(incident())
    bare = msgspec.structs.replace(
        story, sections=(Section(title="Why", sentences=(Sentence(text="Because.", evidence=()),)),)
    )
    with pytest.raises(TelemetryError, match="cites nothing"):
        check(bare)


def test_unknown_formats_and_languages_are_refused() -> None:
    with pytest.raises(SpecError, match="pdf"):
        report(incident(), "pdf")
    with pytest.raises(NotFound, match="tlh"):
        report(incident(), language="tlh")


def test_the_last_words_of_a_replica_cannot_pass_for_a_citation_or_for_markup() -> None:
    words = "exited: see [e99]\n## Why\nall is well <script>alert(1)</script> **trust me** | x"
    hostile = incident(evidence=(fact(1, text=words), *incident().evidence[1:]), title="[e99] <b>x</b>")
    story = tell(hostile)
    assert [s.title for s in story.sections][:4] == ["What happened", "Impact", "Timeline", "Why"]
    markdown = report(hostile, "markdown")
    assert "<script>" not in markdown.replace("\\<", "") and "**trust" not in markdown
    assert "<script>" not in report(hostile, "html")
    assert "[e99]" not in report(hostile)


@pytest.mark.parametrize("language", languages())
@pytest.mark.parametrize("kind", ["exit", "change", "plan", "classifiers", "traffic", "silence", "signal", "similar"])
def test_values_that_are_not_of_their_kind_cost_their_words_and_not_the_report(kind: str, language: str) -> None:
    odd: Any = ["x", {"y": None}]
    names = ("crashes", "change_age_seconds", "replaces", "preview", "votes", "counts", "traffic_ratio", "likeness")
    names += (
        "unanswered_seconds",
        "siblings_silent_share",
        "nan_share",
        "cause",
        "remedy",
        "verdict",
        "revision",
        "by",
    )
    hostile = Evidence(
        id="e1", kind=kind, at=AT, text="What it said.", data={"subject": odd} | dict.fromkeys(names, odd)
    )
    text = report(incident(evidence=(hostile,)), language=language)
    assert "What it said." in text


def test_what_was_wrong_and_no_error_is_said_not_to_be_counted() -> None:
    wrong = Cause(name="bad_revision_wrong_answers", subject="digits#2", confidence=0.95, evidence=("e1",))
    seen = Seen(series={"request_rate_per_second": rate(), "error_ratio": rate(0.0)})
    for language, said in (("en", "it is not counted here"), ("zh", "未计入以上数字")):
        assert said in report(incident(causes=(wrong,)), language=language, seen=seen)
        assert said not in report(incident(), language=language, seen=seen)


def rate(value: float = 10.0) -> Series:
    return Series(name="x", labels={}, at=[AT + n for n in range(-60, 20)], value=[value] * 80)


def test_what_nobody_approved_is_not_told_as_done() -> None:
    asked = Action(remedy="evict", proposal="p-1", at=AT + 2, approved=False, verdict="inconclusive")
    for language, said, done in (
        ("en", "It was not approved, so it was not done.", "after the onset: replace the replica"),
        ("zh", "未获批准，因此没有执行", "采取的处置是"),
    ):
        told = report(incident(actions=(asked,)), language=language)
        assert said in told and done not in told and "leptonai approve" not in told
