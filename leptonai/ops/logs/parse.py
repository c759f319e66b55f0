"""From the bytes of a line to a record: JSON recognised, times and levels read, nothing that steers a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from leptonai.ops.logs.follow import LONGEST
from leptonai.ops.logs.lines import Columns
from leptonai.ops.logs.words import shapes
from leptonai.types import LogRecord

AHEAD = 600.0  # seconds a line's own time may lie ahead of ours ...
BEHIND = 7 * 86400.0  # ... or behind; else the time of reading counts
_SEVERITY = re.compile(
    r"\b(trace|debug|info|notice|warn(?:ing)?|err(?:or)?|crit(?:ical)?|fatal|panic)\b", re.IGNORECASE
)
_NUMBERS = {"t": 1, "d": 5, "i": 9, "n": 10, "w": 13, "e": 17, "c": 18, "f": 21, "p": 21}
_TIME = re.compile(
    r"\[?([0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,9})?) ?(Z|[+-][0-9]{2}:?[0-9]{2})?\]?"
    r"[\s:|]*"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# What moves a cursor, rings, reorders or breaks a line: C0 but the tab, DEL, C1, and Unicode's bidirectional controls.
_STEERING = {
    **{i: f"\\x{i:02x}" for i in (*range(9), *range(10, 32), *range(127, 160))},
    **{i: f"\\u{i:04x}" for i in (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))},
}
_BINARY = 0.3  # share of what is no text from which a line is no text

_MESSAGE = ("message", "msg", "event", "body", "text", "log")
_LEVEL = ("level", "severity", "severity_text", "lvl", "levelname", "log.level")
_WHEN = ("timestamp", "@timestamp", "time", "ts")
_TRACE = ("trace_id", "traceId", "trace.id", "trace")
_SPAN = ("span_id", "spanId", "span.id", "span")
_ZEROS = str.maketrans("123456789", "0" * 9)
_REMEMBERED = 20_000  # beginnings whose level is looked up: most lines of a log differ in their digits only
_MORE, _ASK = -1, -2  # instead of a level: such lines are read one by one; nothing is known of them
_PLAIN = bytes(range(32, 127)) + b"\t\n"
CHUNK = 2_000  # lines looked at one by one because one of them is odd
_levels: dict[str, int] = {}
_HEX = re.compile(r"[0-9a-f]+").fullmatch
_json = msgspec.json.Decoder(dict[str, Any]).decode


def severity(text: str) -> int:
    """OpenTelemetry's number of the first word of the beginning that names a level; 0: none does."""
    begin = text[:120].translate(_ZEROS)
    known = _levels.get(begin)
    if known is None or known == _MORE:
        known = _first_level(begin)
        if not _more(begin):
            _remember(begin, known)
    return known


def _first_level(begin: str) -> int:
    found = _SEVERITY.search(begin)
    return _NUMBERS[found[1][0].lower()] if found else 0


def _more(begin: str) -> bool:
    """Whether a line may hold more than its words: it looks like JSON, or begins with a time."""
    return begin[:1] == "{" or begin.lstrip("[").startswith("0000-00-0")


def _remember(begin: str, level: int) -> None:
    if len(_levels) >= _REMEMBERED:
        _levels.clear()
    _levels[begin] = level


def clean(text: str) -> str:
    """``text`` on one line that a terminal can only print: colours are dropped, what steers is spelt out."""
    if text.isprintable():
        return text
    return _COLOUR.sub("", text).translate(_STEERING)


def decode(line: bytes) -> str:
    """The text of a line without its end. Bytes that are no UTF-8 become U+FFFD, a line that is mostly none of text
    says so instead, one above LONGEST bytes is cut and says how much is missing."""
    if len(line) > LONGEST + 100:  # room for what a cut before this one says
        line = line[:LONGEST] + f" ... {len(line) - LONGEST:,} bytes cut".encode()
    text = line.decode("utf-8", "replace").rstrip("\r")
    if text.isprintable():
        return text
    odd = sum(not c.isprintable() and not c.isspace() for c in text[:1000]) + text.count("\ufffd", 0, 1000)
    if odd > _BINARY * min(1000, len(text)) and "\x1b[" not in text[:1000]:
        return f"<no text, {len(line):,} bytes>"
    return clean(text)


def texts(block: bytes) -> list[str]:
    """``decode`` of each line of a block, without those that are empty: of all at once where nothing in it is odd."""
    if len(block) <= LONGEST or _longest(block) <= LONGEST:
        try:
            if not block.translate(None, _PLAIN):
                return [line for line in block.decode("ascii").split("\n") if line]
            text = block.decode().replace("\r\n", "\n")
        except UnicodeDecodeError:
            text = "\0"
        if text.replace("\n", "").replace("\t", "").isprintable():
            return [line for line in text.split("\n") if line]
    lines = block.split(b"\n")
    if len(lines) <= CHUNK:
        return [text for line in lines if (text := decode(line))]
    chunks = (b"\n".join(lines[i : i + CHUNK]) for i in range(0, len(lines), CHUNK))
    return [text for chunk in chunks for text in texts(chunk)]


def _longest(block: bytes) -> int:
    return max(map(len, block.split(b"\n")))


def columns(lines: list[str], now: float) -> Columns:
    """The columns of decoded lines read at ``now``, as ``record`` says of each."""
    if not lines:
        return Columns([], [], [], [], [])
    known = _levels.get
    zeros = shapes("\n".join(lines)).split("\n")
    levels = [known(zero[:120], _ASK) for zero in zeros]
    at = [now] * len(lines)
    if min(levels) >= 0:
        return Columns(at, levels, lines, [], [], zeros)
    body, trace, span = lines.copy(), [""] * len(lines), [""] * len(lines)
    for i, level in enumerate(levels):
        if level == _ASK:
            begin = zeros[i][:120]
            level = known(begin, _ASK)  # an earlier line may have been like it
            if level == _ASK:
                level = _MORE if _more(begin) else _first_level(begin)
                _remember(begin, level)
            levels[i] = level
        if level == _MORE:
            found = record(lines[i], {}, now)
            at[i], body[i], levels[i] = found.at, found.body, found.severity
            trace[i], span[i] = found.trace, found.span
            zeros[i] = shapes(found.body)
    traced = any(trace) or any(span)
    return Columns(at, levels, body, trace if traced else [], span if traced else [], zeros)


def record(text: str, source: dict[str, str], now: float, level: int = 0) -> LogRecord:
    """The record of one line read at ``now``; ``level`` where its words do not tell one.

    A JSON object with a message under a usual name gives its message, level, time and trace; what else it holds
    follows the message as ``name=value``. A time at the beginning is taken off and believed when it has a zone.
    """
    if text.startswith("{") and text.endswith("}"):
        try:
            found = _json(text)
        except (msgspec.DecodeError, ValueError, RecursionError):
            found = {}
        if (message := next((m for m in _MESSAGE if isinstance(found.get(m), str)), None)) is not None:
            return _structured(found, message, source, now, level)
    at = now
    if (time := _TIME.match(text)) is not None:
        if time[2]:
            at = sane(_iso(time[1] + time[2]), now)
        text = text[time.end() :] or text
    return LogRecord(at=at, source=source, body=text, severity=severity(text) or level)


def _structured(found: dict[str, Any], message: str, source: dict[str, str], now: float, level: int) -> LogRecord:
    said = _pick(found, _LEVEL)
    when = _pick(found, _WHEN)
    trace, span = (str(_pick(found, names) or "").lower() for names in (_TRACE, _SPAN))
    known = {message, *_LEVEL, *_WHEN, *_TRACE, *_SPAN}
    rest = " ".join(f"{clean(k)}={_plain(v)}" for k, v in found.items() if k not in known)
    body = clean(found[message])
    own = said if type(said) is int and 1 <= said <= 24 else severity(str(said or ""))
    return LogRecord(
        at=sane(_when(when), now),
        source=source,
        body=f"{body} {rest}"[:LONGEST] if rest else body,
        severity=own or level,
        trace=trace if len(trace) == 32 and _HEX(trace) else "",
        span=span if len(span) == 16 and _HEX(span) else "",
    )


def _pick(found: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((found[n] for n in names if n in found), None)


def _plain(value: Any) -> str:
    return clean(value if isinstance(value, str) else msgspec.json.encode(value).decode())


def _when(value: Any) -> float | None:
    if isinstance(value, str):
        return _iso(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value if value < 1e11 else value / 1e3 if value < 1e14 else value / 1e6 if value < 1e17 else value / 1e9
    return None


def _iso(text: str) -> float | None:
    try:
        found = datetime.fromisoformat(text.replace(",", "."))
    except ValueError:
        return None
    return found.timestamp() if found.tzinfo is not None else None


def sane(at: float | None, now: float) -> float:
    """``at``, or ``now`` where that is no time, too far ahead or too far behind."""
    return at if at is not None and now - BEHIND <= at <= now + AHEAD else now
