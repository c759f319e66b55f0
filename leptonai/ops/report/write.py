"""A story as text, Markdown, HTML or JSON. What others wrote is data in every one of them, never markup."""

from __future__ import annotations

import html
import re
import textwrap
import unicodedata
from collections.abc import Callable

import msgspec

from leptonai.errors import SpecError
from leptonai.ops.report.charts import COLOURS, chart
from leptonai.ops.report.facts import Seen
from leptonai.ops.report.safe import markdown, plain
from leptonai.ops.report.story import Sentence, Story, tell
from leptonai.ops.report.voice import voice
from leptonai.types import Incident

WIDTH = 100
# Nothing is loaded and nothing runs, even if our escaping had a hole.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_PIECE = re.compile(r"\[[^\]]{1,20}\]|[A-Za-z0-9_.:#/@%-]{1,80}|.", re.DOTALL)  # what a line is not broken within
_STYLE = """
body{font:16px/1.5 system-ui,"Noto Sans CJK SC",sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:1.8rem}li{margin:.25rem 0}
a{color:#777;font-size:.75rem;text-decoration:none}table{border-collapse:collapse;font-size:.85rem}
td,th{border:1px solid #ddd;padding:.2rem .5rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}
svg{width:100%;margin:.4rem 0}svg text{font-size:11px;fill:#555}svg .n{font-weight:600;fill:#222}
svg .e{text-anchor:end}svg .a{fill:none;stroke:#bbb}svg .s{fill:none;stroke:#2c6fbb;stroke-width:1.5}
@media (prefers-color-scheme:dark){
body{background:#161616;color:#ddd}svg text,svg .n{fill:#bbb}td,th{border-color:#444}}
"""


def report(incident: Incident, format: str = "text", language: str = "en", seen: Seen | None = None) -> str:
    """The incident told in ``format`` ``text``, ``markdown``, ``html`` or ``json``; ends in a newline.

    SpecError for another format, NotFound for a language we do not speak, TelemetryError when a sentence is not backed
    by recorded facts.
    """
    known(format)
    return write(tell(incident, language, seen), format)


def known(format: str) -> None:
    """SpecError for a format that we do not write."""
    if format not in FORMATS:
        raise SpecError(f"no report in format {format!r}", hint=f"known: {', '.join(FORMATS)}")


def write(story: Story, format: str) -> str:
    known(format)
    return FORMATS[format](story)


def _heading(story: Story) -> str:
    word = voice(story.language).terms.words["incident"]
    mark = "：" if story.language == "zh" else ": "
    return f"{word} {story.incident}{mark}{story.title}" if story.incident else story.title


def _text(story: Story) -> str:
    lines = [_heading(story), ""]
    for section in story.sections:
        lines.append(section.title)
        for sentence in section.sentences:
            lines += _wrap(_cited(sentence, sentence.text))
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _wrap(text: str) -> list[str]:
    """Lines of at most WIDTH columns: a wide character takes two, and may begin a line."""
    if not any(unicodedata.east_asian_width(c) in "WF" for c in text):
        return textwrap.wrap(text, WIDTH, initial_indent="  - ", subsequent_indent="    ")
    lines, line, used = [], "  - ", 4
    for piece in _PIECE.findall(text):
        wide = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in piece)
        if used + wide > WIDTH and piece not in "，。：；）”、":  # what ends a clause never begins a line
            lines.append(line.rstrip())
            line, used, piece = "    ", 4, piece.lstrip()
        line, used = line + piece, used + wide
    return [*lines, line.rstrip()]


def _markdown(story: Story) -> str:
    words = voice(story.language).terms.words
    lines = [f"# {markdown(_heading(story))}", ""]
    for section in story.sections:
        lines += [f"## {section.title}", ""]
        lines += [f"- {_cited(s, markdown(s.text))}" for s in section.sentences]
        lines.append("")
    lines += [f"## {words['evidence']}", "", f"| {words['id']} | {words['kind']} | {words['fact']} |", "|---|---|---|"]
    lines += [f"| {f.id} | {markdown(plain(f.kind))} | {markdown(plain(f.text))} |" for f in story.facts]
    return "\n".join(lines) + "\n"


def _html(story: Story) -> str:
    tongue = voice(story.language)
    words, said = tongue.terms.words, html.escape
    parts = [
        f'<!doctype html><html lang="{said(story.language)}"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{said(POLICY)}">',
        '<meta name="viewport" content="width=device-width"><meta name="referrer" content="no-referrer">',
        f"<title>{said(_heading(story))}</title><style>{_STYLE}</style></head><body><h1>{said(_heading(story))}</h1>",
    ]
    drawn = "".join(
        chart(series, story.marks, tongue, "" if story.incident else plain(series.labels.get("service", "")))
        for series in story.charts
    )
    if drawn:
        legend = " · ".join(
            f'<span style="color:{COLOURS.get(m.kind, "#555")}">┆ {said(m.text)} {tongue.clock(m.at)}</span>'
            for m in story.marks
        )
        parts.append(f"<h2>{said(words['charts'])}</h2>{legend and f'<p>{legend}</p>'}{drawn}")
    ids = {f.id for f in story.facts}
    for section in story.sections:
        parts.append(f"<h2>{said(section.title)}</h2><ul>")
        for s in section.sentences:
            cited = " ".join(f'<a href="#{said(e)}">[{said(e)}]</a>' for e in s.evidence if e in ids)
            parts.append(f"<li>{said(s.text)} {cited}</li>")
        parts.append("</ul>")
    parts.append(f"<h2>{said(words['evidence'])}</h2><table>")
    parts.append("".join(f"<th>{said(words[w])}</th>" for w in ("id", "kind", "fact")))
    for f in story.facts:
        parts.append(f'<tr id="{said(f.id)}"><td>{said(f.id)}</td><td>{said(f.kind)}</td><td>{said(f.text)}</td></tr>')
    return "".join(parts) + "</table></body></html>\n"


def _json(story: Story) -> str:
    whole = msgspec.to_builtins(story)
    whole["evidence"] = whole.pop("facts")
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"


FORMATS: dict[str, Callable[[Story], str]] = {"text": _text, "markdown": _markdown, "html": _html, "json": _json}


def _cited(sentence: Sentence, text: str) -> str:
    return " ".join([text, *(f"[{id}]" for id in sentence.evidence)])
