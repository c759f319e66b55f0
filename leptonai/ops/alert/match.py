"""Matchers of labels, in Alertmanager's spelling and with its meaning. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import msgspec

from leptonai.errors import SpecError
from leptonai.types import Alert, Matcher, Silence

_SPELLED = re.compile(r"\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*(.*?)\s*", re.DOTALL)
LONGEST = 1000  # characters of one matcher
HINT = """like service="digits", severity!=info or service=~"shop.*\""""


def parse(text: str) -> Matcher:
    """``label op value``; the value may stand in double quotes. SpecError names what is wrong."""
    found = _SPELLED.fullmatch(text)
    if found is None or len(text) > LONGEST:
        raise SpecError(f"{text[:80]!r} is no matcher", hint=HINT)
    label, op, value = found.groups()
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], value[1:-1])
    elif '"' in value:
        raise SpecError(f"{text!r}: a quote is left open", hint=HINT)
    return check(msgspec.convert({"label": label, "op": op, "value": value}, Matcher))


def check(matcher: Matcher) -> Matcher:
    """``matcher`` itself; SpecError when it is none: a label without a name, a pattern that cannot be compiled."""
    if not _SPELLED.fullmatch(f"{matcher.label}=") or len(matcher.value) > LONGEST:
        raise SpecError(f"{spell(matcher)[:80]} is no matcher", hint=HINT)
    if matcher.op in ("=~", "!~"):
        try:
            re.compile(matcher.value)
        except (re.error, RecursionError, OverflowError) as e:
            raise SpecError(f"{spell(matcher)}: {matcher.value!r} is no regular expression: {e}", hint=HINT) from None
    return matcher


def spell(matcher: Matcher) -> str:
    value = matcher.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{matcher.label}{matcher.op}"{value}"'


def agrees(labels: Mapping[str, str], matchers: Iterable[Matcher]) -> bool:
    """Whether all of ``matchers`` hold; a missing label equals ""."""
    return all(_holds(labels.get(m.label, ""), m) for m in matchers)


def _holds(value: str, m: Matcher) -> bool:
    if m.op in ("=", "!="):
        return (value == m.value) == (m.op == "=")
    return (_pattern(m.value).fullmatch(value) is not None) == (m.op == "=~")


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


def active(silence: Silence, now: float) -> bool:
    return silence.starts <= now < silence.ends


def silenced(alert: Alert, silences: Iterable[Silence], now: float) -> Silence | None:
    """The silence that mutes the alert at ``now``, the oldest; None when none does."""
    found = [s for s in silences if active(s, now) and agrees(alert.labels, s.matchers)]
    return min(found, key=lambda s: s.id, default=None)


def spent(silence: Silence, alerts: Iterable[Alert], muted_before: bool, now: float) -> bool:
    """Whether an ``until_resolved`` silence has done its work: it muted something once, and that is over."""
    if not (silence.until_resolved and muted_before and active(silence, now)):
        return False
    return not any(a.state != "resolved" and agrees(a.labels, silence.matchers) for a in alerts)
