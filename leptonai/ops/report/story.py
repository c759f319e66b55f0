"""The story of an incident: sentences, each with the facts it rests on, checked before anybody reads it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import jinja2
import msgspec

from leptonai.errors import TelemetryError
from leptonai.ops.incidents import NOTES, service_of
from leptonai.ops.report.claims import unbacked
from leptonai.ops.report.facts import Seen, facts, seconds
from leptonai.ops.report.safe import plain
from leptonai.ops.report.voice import TEMPLATES, Voice, voice
from leptonai.types import Evidence, Incident, Noun, Series

_CITED = re.compile(r"\s*\[([a-z][a-z0-9]*[0-9])\]")
TOLD = 40  # facts of one section: a person reads no more


class Sentence(Noun, frozen=True, kw_only=True):
    text: str
    evidence: tuple[str, ...]


class Section(Noun, frozen=True, kw_only=True):
    title: str
    sentences: tuple[Sentence, ...]


class Mark(Noun, frozen=True, kw_only=True):
    """A moment shown in the charts: ``kind`` onset, action or close."""

    at: float
    kind: str
    text: str


class Story(Noun, frozen=True, kw_only=True):
    """``incident``: 0 for a digest. ``facts``: what sentences may cite. ``seconds``: to detect, diagnose, recover."""

    incident: int
    title: str
    language: str
    sections: tuple[Section, ...]
    facts: tuple[Evidence, ...] = ()
    seconds: dict[str, float] = {}
    charts: tuple[Series, ...] = ()
    marks: tuple[Mark, ...] = ()


def tell(incident: Incident, language: str = "en", seen: Seen | None = None) -> Story:
    """The story in ``language``, checked: see ``check``. NotFound when we do not speak the language."""
    tongue, seen = voice(language), seen or Seen()
    known = facts(incident, seen)
    cited = _words(incident, known, tongue)
    try:
        sections = render("story", tongue, cited)
    except (TypeError, ValueError, AttributeError, jinja2.TemplateError):
        # Values that are not what their kind has are not ours: somebody else wrote the document. Its words are quoted.
        known = tuple(msgspec.structs.replace(f, data={}) if f.id[0] == "e" else f for f in known)
        cited = _words(incident, known, tongue)
        sections = render("story", tongue, cited)
    marks = [Mark(at=incident.began, kind="onset", text=tongue.terms.words["onset"])]
    marks += [
        Mark(at=a.at, kind="action", text=tongue.term("remedies", plain(a.remedy)))
        for a in incident.actions
        if a.proposal is not None and a.approved is not False
    ]
    if incident.closed is not None:
        marks.append(Mark(at=incident.closed, kind="close", text=tongue.terms.words["close"]))
    story = Story(
        incident=incident.id,
        title=cited["title"],
        language=language,
        sections=sections,
        facts=known,
        seconds=seconds(incident),
        charts=tuple(s for s in seen.series.values() if s.at),
        marks=tuple(marks),
    )
    check(story)
    return story


def render(template: str, tongue: Voice, words: dict[str, Any]) -> tuple[Section, ...]:
    """The sections of a template: one sentence a line, ``## `` begins a section, ``[e1]`` cites."""
    text = _templates(tongue.language).get_template(f"{template}.j2").render(words | {"say": tongue, "cite": _cite})
    sections: list[Section] = []
    for line in text.split("\n"):
        if line.startswith("## "):
            sections.append(Section(title=line[3:].strip(), sentences=()))
        elif line.strip():
            cited = tuple(dict.fromkeys(_CITED.findall(line)))
            sentence = Sentence(text=_CITED.sub("", line).strip(), evidence=cited)
            last = sections[-1]
            sections[-1] = Section(title=last.title, sentences=(*last.sentences, sentence))
    return tuple(s for s in sections if s.sentences)


def check(story: Story) -> None:
    """Raises TelemetryError for a sentence that cites nothing, cites what is not recorded, or says what it does not.

    See ``claims``: each number, moment and name with a digit must be found in the facts that the sentence cites.
    """
    known = {f.id: f for f in story.facts}
    where = f"the report of incident {story.incident}" if story.incident else "the digest"
    for section in story.sections:
        for sentence in section.sentences:
            wrong = next((id for id in sentence.evidence if id not in known), None)
            if wrong is not None:
                raise TelemetryError(
                    f"{where} cites {wrong}, which is not recorded: {sentence.text!r}",
                    hint="a report may only say what recorded facts say",
                )
            if not sentence.evidence:
                raise TelemetryError(f"{where} cites nothing for {sentence.text!r}")
            claim = unbacked(sentence.text, [known[id] for id in sentence.evidence])
            if claim is not None:
                raise TelemetryError(
                    f"{where} says {claim!r}, which {', '.join(sentence.evidence)} does not hold: {sentence.text!r}",
                    hint="a report may only say what the facts it cites say",
                )


def _words(incident: Incident, known: tuple[Evidence, ...], tongue: Voice) -> dict[str, Any]:
    by_id = {f.id: f for f in known}
    top = incident.causes[0] if incident.causes else None
    explained = {id for cause in incident.causes[:4] for id in cause.evidence}
    notes = [f for f in known if f.kind in NOTES and f.id[0] == "e"]
    other = [f for f in known if f.id[0] == "e" and f.id not in explained and f.kind not in NOTES][:TOLD]
    actions = [f for f in known if f.kind == "remedy"]
    done = [f for f in actions if f.data.get("approved") is not False]
    title = plain(incident.title)
    if tongue.language != "en" and top is not None and top.name != "unknown":
        title = f"{tongue.term('causes', top.name)}：{plain(top.subject)}"
    elif tongue.language != "en":
        title = _opened(incident, tongue) or title
    return {
        "incident": incident,
        "title": title,
        "top": top,
        "causes": incident.causes[:4],
        "why": [by_id[id] for id in (top.evidence if top else ()) if id in by_id][:TOLD],
        "cited": top.evidence if top else (),
        "notes": notes,
        "other": other,
        "actions": actions,
        "fact": by_id,
        "took": seconds(incident),
        "effective": [f for f in done if f.data.get("verdict") == "effective"],
        "asked": [f for f in actions if f.data.get("approved") is False and "verdict" not in f.data],
        "failed": [f for f in done if f.data.get("verdict") in ("ineffective", "harmful", "inconclusive")],
    }


def _opened(incident: Incident, tongue: Voice) -> str:
    """What opened it, in a language that is not the record's own; "" where it has no words for that."""
    key, first = plain(service_of(incident)), incident.anomalies[0] if incident.anomalies else None
    if not key or first is None:
        return ""
    if said := tongue.terms.conditions.get(first.labels.get("condition", "")):
        return f"{key}：{said}"
    return tongue.terms.titles.get(first.signal, "").format(service=key)


def _cite(*ids: str | Iterable[str]) -> _Mark:
    flat = [id for item in ids for id in ((item,) if isinstance(item, str) else item)]
    return _Mark(" ".join(f"[{id}]" for id in flat))


class _Mark(str):
    """Text of ours, whose brackets mean a citation."""


def _plain(value: Any) -> Any:
    return plain(value) if isinstance(value, str) and not isinstance(value, _Mark) else value


@cache
def _templates(language: str) -> jinja2.Environment:
    return jinja2.Environment(  # noqa: S701 - lines of text, not HTML: what is inserted is made harmless by ``finalize``
        loader=jinja2.FileSystemLoader(TEMPLATES / language), finalize=_plain, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
