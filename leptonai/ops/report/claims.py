"""The claim checker: each number, moment and name with a digit in a sentence must be found in the facts it cites.

It knows nothing of templates or models: it reads the finished sentence. A number is compared at the precision it is
printed with, and with facts of its own kind alone: seconds with seconds, shares with shares.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from leptonai.ops.report.safe import plain
from leptonai.types import Evidence

# A measured value's kind is told by the end of its name, as with signals: ``_seconds``, ``_share``, ``_at`` ...
_KINDS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("_at",), ("moment",)),
    (("_bytes", "_bytes_per_second"), ("bytes",)),
    (("_share", "confidence", "objective"), ("share",)),
    (("_seconds",), ("seconds",)),
    (("_ratio", "_excess"), ("share", "plain")),
)
_UNITS = {
    "%": ("share", 0.01), "ms": ("seconds", 1e-3), "s": ("seconds", 1.0), "min": ("seconds", 60.0),
    "h": ("seconds", 3600.0), "d": ("seconds", 86400.0), "毫秒": ("seconds", 1e-3), "秒": ("seconds", 1.0),
    "分钟": ("seconds", 60.0), "小时": ("seconds", 3600.0), "天": ("seconds", 86400.0), "B": ("bytes", 1.0),
    "kB": ("bytes", 1e3), "MB": ("bytes", 1e6), "GB": ("bytes", 1e9), "TB": ("bytes", 1e12),
    "万": ("plain", 1e4), "亿": ("plain", 1e8),
}  # fmt: skip
_NUMBER = r"[0-9](?:[0-9,]*[0-9])?(?:\.[0-9]+)?"
_EDGE = r"(?![A-Za-z0-9_])"
_MOMENT = re.compile(
    r"(?P<t1>[0-9]{2}:[0-9]{2}:[0-9]{2}) UTC on (?P<d1>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"|(?P<d2>[0-9]{4}年[0-9]{2}月[0-9]{2}日) (?P<t2>[0-9]{2}:[0-9]{2}:[0-9]{2}) UTC"
    r"|(?P<d3>[0-9]{4}(?:-[0-9]{2}-|年[0-9]{2}月)[0-9]{2}日?)|(?P<t3>[0-9]{2}:[0-9]{2}:[0-9]{2})"
)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.#/@:-]*")
_SPAN = re.compile(
    rf"(?<![A-Za-z0-9_.])({_NUMBER}) (d|h|min|天|小时|分钟) ([0-9]+) (h|min|s|小时|分钟|秒){_EDGE}"
    rf"|(?<![A-Za-z0-9_.])({_NUMBER}) ?(%|毫秒|秒|分钟|小时|天|万|亿|(?:ms|min|s|h|d|kB|MB|GB|TB|B){_EDGE})"
)
_PLAIN = re.compile(rf"(?<![0-9.])({_NUMBER})")
_OURS = frozenset({"p50", "p99", "p90", "F1"})
_HOLE = "\x00"


class Claim(NamedTuple):
    """``kind``: seconds, share, bytes, moment, day, clock, plain or name. ``value`` may be off by ``within``."""

    kind: str
    value: float
    within: float
    said: str


def claims(text: str) -> list[Claim]:
    """What ``text`` says in numbers, moments, and names that have a digit; in no order."""
    found: list[Claim] = []

    def moment(m: re.Match[str]) -> str:
        day, time = m["d1"] or m["d2"] or m["d3"], m["t1"] or m["t2"] or m["t3"]
        day = re.sub("[年月]", "-", day).rstrip("日") if day else ""
        try:
            at = datetime.fromisoformat(f"{day or '1970-01-01'}T{time or '00:00:00'}+00:00").timestamp()
        except ValueError:
            found.append(Claim("name", 0.0, 0.0, m[0]))
            return _HOLE
        found.append(Claim("moment" if day and time else "day" if day else "clock", at, 0.0, m[0]))
        return _HOLE

    def span(m: re.Match[str]) -> str:
        parts = [(m[1], m[2]), (m[3], m[4])] if m[1] else [(m[5], m[6])]
        kind = _UNITS[parts[0][1]][0]
        value = sum(_value(n) * _UNITS[unit][1] for n, unit in parts)
        found.append(Claim(kind, value, _half(parts[-1][0]) * _UNITS[parts[-1][1]][1], m[0]))
        return _HOLE

    def name(m: re.Match[str]) -> str:
        said = m[0].rstrip(".:-/#@")
        if not re.search("[0-9]", said) or not re.search("[A-Za-z_]", said):
            return m[0]
        if said not in _OURS:
            found.append(Claim("name", 0.0, 0.0, said))
        return _HOLE

    text = _MOMENT.sub(moment, text)
    text = _SPAN.sub(span, text)
    text = _NAME.sub(name, text)
    found += [Claim("plain", _value(m[1]), _half(m[1]), m[1]) for m in _PLAIN.finditer(text)]
    return found


def unbacked(text: str, cited: Sequence[Evidence]) -> str | None:
    """The first claim of ``text`` that none of the ``cited`` facts holds; None when all is backed."""
    strings = [plain(s) for fact in cited for s in (fact.text, *_strings(fact.data))]
    for string in sorted({s for s in strings if re.search("[A-Za-z]", s) and len(s) > 1}, key=len, reverse=True):
        text = text.replace(string, _HOLE)
    known = [claim for string in strings for claim in claims(string)]
    values = [pair for fact in cited for pair in (*_numbers(fact.data), ("moment", fact.at))]
    for claim in claims(text):
        if claim.kind == "name":
            backed = any(claim.said in s for s in strings)
        else:
            backed = any(k.kind == claim.kind and abs(k.value - claim.value) <= claim.within + k.within for k in known)
            backed = backed or any(_same(claim, kind, value) for kind, value in values)
        if not backed:
            return claim.said
    return None


def _same(claim: Claim, kind: str, value: float) -> bool:
    if kind == "moment" and claim.kind in ("day", "clock"):
        whole = datetime.fromtimestamp(min(max(value, 0.0), 253402300799.0), UTC).timestamp()
        away = whole - claim.value if claim.kind == "day" else (whole % 86400.0) - claim.value
        return 0 <= away < (86400.0 if claim.kind == "day" else 1.0)
    if claim.kind == "moment":
        return kind == "moment" and 0 <= value - claim.value < 1.0  # a clock shows whole seconds gone by
    within = claim.within * (1 + 1e-9) + 1e-12 * abs(value)
    return kind == claim.kind and abs(abs(value) - claim.value) <= within


def _numbers(data: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _numbers(value, str(key))
    elif isinstance(data, list | tuple):
        for value in data:
            yield from _numbers(value, name)
    elif isinstance(data, int | float) and not isinstance(data, bool):
        kinds = next((kinds for ends, kinds in _KINDS if name.endswith(ends)), ("plain",))
        yield from ((kind, float(data)) for kind in kinds)


def _strings(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list | tuple):
        items: Iterable[Any] = data.values() if isinstance(data, dict) else data
        for value in items:
            yield from _strings(value)


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _half(number: str) -> float:
    return 0.5 * 10.0 ** -len(number.partition(".")[2])
