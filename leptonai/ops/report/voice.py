"""How one language says numbers, shares, durations, moments and our terms. Each language has its own files."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec

from leptonai.errors import NotFound
from leptonai.types import Noun

TEMPLATES = Path(__file__).with_name("templates")
MEMORY = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
SPANS = {
    "en": {"d": "d", "h": "h", "min": "min", "s": "s", "ms": "ms"},
    "zh": {"d": "天", "h": "小时", "min": "分钟", "s": "秒", "ms": "毫秒"},
}


class Terms(Noun, frozen=True, kw_only=True):
    """The words of one language: ``terms.yaml``. ``meanings`` are sentences' ends, ``causes`` and the rest names."""

    name: str
    stop: str  # what ends a sentence
    causes: dict[str, str]
    meanings: dict[str, str]
    remedies: dict[str, str]
    verdicts: dict[str, str]
    signals: dict[str, str]
    severities: dict[str, str]
    limits: dict[str, str]  # what can be used up first
    dials: dict[str, str]  # what advice changes, with a place for the number
    words: dict[str, str]
    titles: dict[str, str] = {}  # of an incident without a cause, by what opened it
    conditions: dict[str, str] = {}  # that ship and open incidents, by name


class Voice:
    """Everything said through it can be read back by ``claims``: that is what makes a report checkable."""

    def __init__(self, language: str, terms: Terms) -> None:
        self.language, self.terms = language, terms
        self._span = SPANS[language]

    def count(self, value: float, of: str = "") -> str:
        """A number of things: ``12,345``; in Chinese by ten thousands, ``1.23 万``. ``of``: the Chinese measure word,
        which a Chinese numeral takes without a space: ``12 个``, ``1.23 万个``."""
        if self.language == "zh" and abs(value) >= 99_995_000:
            return f"{value / 1e8:.2f} 亿{of}"
        if self.language == "zh" and abs(value) >= 10_000:
            return f"{value / 1e4:.2f} 万{of}"
        return f"{value:,.0f}" + (f" {of}" if of else "")

    def number(self, value: float, of: str = "") -> str:
        """A measured number, to three digits or so; ``of`` as in ``count``."""
        size = abs(value)
        if size >= 1000:
            return self.count(value, of)
        digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 4
        return f"{value:.{digits}f}" + (f" {of}" if of else "")

    def share(self, value: float) -> str:
        """``95%``; close to 0 and 1 with the digits that tell it apart from them."""
        edge = min(abs(value), abs(1.0 - value))
        digits = 0 if edge >= 0.05 or edge == 0 else 1 if edge >= 5e-3 else 2 if edge >= 5e-4 else 4
        return f"{value * 100:.{digits}f}%"

    def span(self, seconds: float) -> str:
        """A duration in its one or two largest units."""
        s = max(seconds, 0.0)
        u = self._span
        if 0 < s < 0.9995:
            return f"{s * 1e3:.0f} {u['ms']}" if s >= 0.01 else f"{s * 1e3:.2f} {u['ms']}"
        if s < 119.95:
            return f"{s:.1f} {u['s']}"
        for big, size, small, part in (("min", 60, "s", 1), ("h", 3600, "min", 60), ("d", 86400, "h", 3600)):
            whole = round(s / part) * part
            if whole < {"min": 7200, "h": 172800, "d": float("inf")}[big]:
                rest = round((whole % size) / part)
                return f"{whole // size} {u[big]}" + (f" {rest} {u[small]}" if rest else "")
        raise AssertionError("every duration has a unit")

    def memory(self, size: float) -> str:
        for scale, unit in MEMORY:
            if abs(size) >= scale:
                return f"{size / scale:.1f} {unit}"
        return f"{size:.0f} B"

    def moment(self, at: float) -> str:
        return _utc(at, "at %H:%M:%S UTC on %Y-%m-%d" if self.language == "en" else "%Y年%m月%d日 %H:%M:%S UTC")

    def clock(self, at: float) -> str:
        return _utc(at, "%H:%M:%S")

    def day(self, at: float) -> str:
        return _utc(at, "%Y-%m-%d" if self.language == "en" else "%Y年%m月%d日")

    def term(self, kind: str, name: str) -> str:
        """Our term for a cause, remedy, signal ...; one that has none is said as it is written."""
        known: dict[str, str] = getattr(self.terms, kind)
        return known.get(name) or name.replace("_", " ")


def _utc(at: float, form: str) -> str:
    return datetime.fromtimestamp(min(max(at, 0.0), 253402300799.0), UTC).strftime(form)


def languages() -> tuple[str, ...]:
    return tuple(sorted(p.parent.name for p in TEMPLATES.glob("*/story.j2")))


@cache
def voice(language: str) -> Voice:
    """NotFound for a language that we do not speak."""
    if language not in languages():
        raise NotFound(f"no report in language {language!r}", hint=f"known: {', '.join(languages())}")
    terms = msgspec.yaml.decode((TEMPLATES / language / "terms.yaml").read_bytes(), type=Terms)
    return Voice(language, terms)
