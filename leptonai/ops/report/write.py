"""A story as text, Markdown or JSON."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable

import msgspec

from leptonai.errors import SpecError
from leptonai.ops.report.story import Sentence, Story, tell
from leptonai.types import Incident

WIDTH = 100
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|])")


def report(incident: Incident, format: str = "text", language: str = "en") -> str:
    """The incident told in ``format`` ``text``, ``markdown`` or ``json``; ends in a newline.

    SpecError for another format, NotFound for a language we do not speak, TelemetryError when a sentence is not backed
    by recorded evidence.
    """
    if format not in FORMATS:
        raise SpecError(f"no report in format {format!r}", hint=f"known: {', '.join(FORMATS)}")
    return FORMATS[format](tell(incident, language), incident)


def _text(story: Story, incident: Incident) -> str:
    lines = [f"Incident {story.incident}: {story.title}", _times(story), ""]
    for section in story.sections:
        lines.append(section.title)
        for sentence in section.sentences:
            lines += textwrap.wrap(
                _cited(sentence, sentence.text), WIDTH, initial_indent="  - ", subsequent_indent="    "
            )
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _markdown(story: Story, incident: Incident) -> str:
    lines = [f"# Incident {story.incident}: {_escape(story.title)}", "", _times(story), ""]
    for section in story.sections:
        lines += [f"## {section.title}", ""]
        lines += [f"- {_cited(s, _escape(s.text))}" for s in section.sentences]
        lines.append("")
    lines += ["## Evidence", "", "| id | kind | fact |", "|---|---|---|"]
    lines += [f"| {e.id} | {_escape(e.kind)} | {_escape(' '.join(e.text.split()))} |" for e in incident.evidence]
    return "\n".join(lines) + "\n"


def _json(story: Story, incident: Incident) -> str:
    whole = msgspec.to_builtins(story) | {"evidence": msgspec.to_builtins(incident.evidence)}
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"


FORMATS: dict[str, Callable[[Story, Incident], str]] = {"text": _text, "markdown": _markdown, "json": _json}


def _times(story: Story) -> str:
    names = {"detect": "detected", "diagnose": "explained", "recover": "recovered"}
    known = [f"{names[name]} after {value:.1f} s" for name, value in story.seconds.items()]
    return ", ".join(known).capitalize() + "." if known else ""


def _cited(sentence: Sentence, text: str) -> str:
    return " ".join([text, *(f"[{id}]" for id in sentence.evidence)])


def _escape(text: str) -> str:
    """Text of others must not become markup, wherever the Markdown is shown."""
    return _SPECIAL.sub(r"\\\1", text)
