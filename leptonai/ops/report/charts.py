"""Signals over time as inline SVG: no script, no style from outside, nothing fetched. Pure."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from leptonai.ops.report.story import Mark
from leptonai.ops.report.voice import Voice
from leptonai.types import Series

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 150, 64, 24, 22
LONG = 12 * 3600.0  # seconds
COLOURS = {"onset": "#c0392b", "action": "#8e44ad", "close": "#27ae60"}


def chart(series: Series, marks: Sequence[Mark], voice: Voice, about: str = "") -> str:
    """One signal (``about`` whom) over time with a line per mark; gaps stay gaps. "" when nothing was seen."""
    seen = [(t, v) for t, v in zip(series.at, series.value, strict=True) if math.isfinite(v)]
    if not seen:
        return ""
    start, end = series.at[0], max(series.at[-1], series.at[0] + 1.0)
    top = max(v for _, v in seen) or 1.0
    step = sorted(b - a for a, b in zip(series.at, series.at[1:], strict=False))
    gap = 3.0 * step[len(step) // 2] if step else math.inf

    def x(t: float) -> float:
        return LEFT + (min(max(t, start), end) - start) / (end - start) * (WIDTH - LEFT - 12)

    def y(v: float) -> float:
        return TOP + (1.0 - max(v, 0.0) / top) * (HEIGHT - TOP - BOTTOM)

    path, last = [], -math.inf
    for t, v in seen:
        path.append(f"{'M' if t - last > gap else 'L'}{x(t):.1f} {y(v):.1f}")
        last = t
    name = html.escape(f"{voice.term('signals', series.name)}{about and ' · '}{about}")
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}" xmlns="http://www.w3.org/2000/svg">',
        f'<text x="{LEFT}" y="14" class="n">{name}</text>',
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - 12}" class="a"/>',
        f'<text x="{LEFT - 6}" y="{TOP + 4}" class="l e">{html.escape(_value(series.name, top, voice))}</text>',
        f'<text x="{LEFT - 6}" y="{HEIGHT - BOTTOM}" class="l e">0</text>',
        f'<text x="{LEFT}" y="{HEIGHT - 6}" class="l">{_moment(start, end - start, voice)}</text>',
        f'<text x="{WIDTH - 12}" y="{HEIGHT - 6}" class="l e">{_moment(end, end - start, voice)}</text>',
    ]
    for mark in (m for m in marks if start <= m.at <= end):
        at, colour = x(mark.at), COLOURS.get(mark.kind, "#555")
        parts.append(
            f'<g class="{html.escape(mark.kind)}"><title>{html.escape(mark.text)} {voice.clock(mark.at)}</title>'
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 4}" y2="{HEIGHT - BOTTOM}" stroke="{colour}" '
            f'stroke-dasharray="4 3"/></g>'
        )
    return "".join([*parts, f'<path d="{"".join(path)}" class="s"/></svg>'])


def _moment(at: float, width: float, voice: Voice) -> str:
    """With the day, where a clock alone would not tell which."""
    return f"{voice.day(at)} {voice.clock(at)}" if width > LONG else voice.clock(at)


def _value(name: str, value: float, voice: Voice) -> str:
    if name.endswith("_ratio"):
        return voice.share(value)
    return voice.span(value) if name.endswith("_seconds") else voice.number(value)
