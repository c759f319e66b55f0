"""The story of an incident: sentences, each with the evidence it rests on. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from leptonai.errors import NotFound, TelemetryError
from leptonai.ops.diagnose import CAUSES
from leptonai.ops.incidents import NOTES
from leptonai.types import Incident, Noun

TEMPLATES = Path(__file__).with_name("templates")

_CITED = re.compile(r"\s*\[(e\d+)\]")


class Sentence(Noun, frozen=True, kw_only=True):
    text: str
    evidence: tuple[str, ...]


class Section(Noun, frozen=True, kw_only=True):
    title: str
    sentences: tuple[Sentence, ...]


class Story(Noun, frozen=True, kw_only=True):
    """``seconds``: how long it took from the onset to ``detect``, ``diagnose`` and ``recover``, as far as known."""

    incident: int
    title: str
    language: str
    sections: tuple[Section, ...]
    seconds: dict[str, float]


def tell(incident: Incident, language: str = "en") -> Story:
    """The story in ``language``, checked: see ``check``. NotFound when we do not speak the language."""
    if language not in languages():
        raise NotFound(f"no report in language {language!r}", hint=f"known: {', '.join(languages())}")
    text = _templates().get_template(f"{language}/story.j2").render(_words(incident))
    sections: list[Section] = []
    for line in text.splitlines():
        if line.startswith("## "):
            sections.append(Section(title=line[3:].strip(), sentences=()))
        elif line.strip():
            cited = tuple(_CITED.findall(line))
            sentence = Sentence(text=_CITED.sub("", line).strip(), evidence=cited)
            last = sections[-1]
            sections[-1] = Section(title=last.title, sentences=(*last.sentences, sentence))
    story = Story(
        incident=incident.id,
        title=_plain(incident.title),
        language=language,
        sections=tuple(sections),
        seconds=seconds(incident),
    )
    check(story, incident)
    return story


def check(story: Story, incident: Incident) -> None:
    """Raises TelemetryError for a sentence that cites nothing although there is evidence, or what is not recorded."""
    known = {e.id for e in incident.evidence}
    for section in story.sections:
        for sentence in section.sentences:
            if wrong := [id for id in sentence.evidence if id not in known]:
                raise TelemetryError(
                    f"the report of incident {incident.id} cites {wrong[0]}, which is not recorded: {sentence.text!r}",
                    hint="a report may only say what the incident's evidence says",
                )
            if known and not sentence.evidence:
                raise TelemetryError(f"the report of incident {incident.id} cites nothing for {sentence.text!r}")


def seconds(incident: Incident) -> dict[str, float]:
    moments = {
        "detect": incident.opened,
        "diagnose": incident.diagnosed,
        "recover": incident.mitigated or incident.closed,
    }
    return {name: round(at - incident.began, 3) for name, at in moments.items() if at is not None}


def languages() -> tuple[str, ...]:
    return tuple(sorted(p.parent.name for p in TEMPLATES.glob("*/story.j2")))


def _words(incident: Incident) -> dict[str, Any]:
    facts = {e.id: e for e in incident.evidence}
    top = incident.causes[0] if incident.causes else None
    cited = {id for cause in incident.causes[:4] for id in cause.evidence}
    done = [e.id for e in incident.evidence if e.kind in NOTES]
    first = tuple(e.id for e in incident.evidence if e.kind not in NOTES)[:1] or tuple(facts)[:1]
    return {
        "incident": incident,
        "top": top,
        "first": top.evidence[:1] if top and top.evidence else first,
        "why": top.evidence if top and top.evidence else first,
        "last": tuple(done[-1:]) or first,
        "done": done,
        "other": [id for id in facts if id not in cited and id not in done],
        "fact": lambda id: facts[id].text if id in facts else "",
        "meaning": lambda name: CAUSES.get(name, name),
        "cite": _cite,
    }


def _cite(ids: Iterable[str]) -> _Mark:
    return _Mark(" ".join(f"[{id}]" for id in ids))


class _Mark(str):
    """Text of ours, whose brackets mean a citation."""


def _plain(value: Any) -> Any:
    """Text of others, such as a replica's last words: one line, and no brackets that could pass for a citation."""
    if isinstance(value, str) and not isinstance(value, _Mark):
        return " ".join(value.replace("[", "(").replace("]", ")").split())
    return value


@cache
def _templates() -> jinja2.Environment:
    made = jinja2.Environment(  # noqa: S701 - lines of text, not HTML: what is inserted is made harmless by ``finalize``
        loader=jinja2.FileSystemLoader(TEMPLATES), finalize=_plain, undefined=jinja2.StrictUndefined
    )
    made.globals.update(seconds=_seconds, share=lambda v: f"{v:.0%}", moment=_moment)
    return made


def _seconds(value: float) -> str:
    return f"{max(value, 0.0):.1f} s"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("at %H:%M:%S UTC on %Y-%m-%d")
