"""What a log began or ceased to say, in words; what new error lines speak of, by the words that clients use for it."""

from __future__ import annotations

import re
from typing import Literal

from leptonai.ops.logs.query import level_name
from leptonai.ops.logs.shifts import Shift

ERROR = 17  # severity from which a line is an error (OpenTelemetry)
# How errors of clients speak of what they call: those of Python's socket, ssl, http, urllib3, requests, httpx, grpc and
# of the usual database drivers, and plain words for it.
UNREACHED = re.compile(
    r"connection (was )?(refused|reset|aborted|closed|timed out|error)|connect(ion)? ?(timeout|failed|error)"
    r"|(could not|cannot|failed to|unable to) (connect|reach|call)|name or service not known|name resolution"
    r"|no route to host|unreachable|max retries exceeded|remote end closed|server disconnected|bad gateway"
    r"|service unavailable|StatusCode\.(UNAVAILABLE|DEADLINE_EXCEEDED)|\b(call|request) to \S+ (failed|timed out)",
    re.IGNORECASE,
)
DENIED = re.compile(
    r"\b40[13]\b|unauthori[sz]ed|unauthenticated|forbidden|permission.?denied|access denied"
    r"|(certificate|token|credential|signature)\w* .{0,30}(expired|invalid|verify failed)|(expired|invalid) (api )?"
    r"(certificate|token|credential|key)",
    re.IGNORECASE,
)


def of_calls(shift: Shift) -> Literal["fail", "denied", ""]:
    """Whether error lines that are new or more frequent tell of calls that do not go through, or are refused."""
    if shift.kind == "silent" or shift.severity < ERROR:
        return ""
    if DENIED.search(shift.template):
        return "denied"
    return "fail" if UNREACHED.search(shift.template) else ""


def in_words(shift: Shift) -> str:
    """One sentence with its numbers."""
    name = level_name(shift.severity)
    what = f"{'an' if name[:1] in 'ei' else 'a'} {name} line" if name else "a line"
    if shift.kind == "new":
        often = f"{shift.count} times since the onset" if shift.count else "just before the onset"
        text = f"The log has {what} that it never had before, {often}"
    elif shift.kind == "more":
        text = f"The log has {what} {shift.rate:.3g} times a second since the onset, {shift.usual:.3g} before"
    else:
        text = f"The log had {what} {shift.usual:.3g} times a second before the onset, {shift.rate:.3g} since"
    return f"{text}: {shift.template[:200]!r}, such as {shift.sample[:200]!r}."
