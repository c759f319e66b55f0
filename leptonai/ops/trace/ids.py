"""Ids of traces and spans, as W3C trace context spells them, the same wherever they are worked out.

Source: www.w3.org/TR/trace-context, version 00.
"""

from __future__ import annotations

import hashlib
import re

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_HEX = re.compile(r"[0-9a-f]{32}")


def traceparent(header: str) -> tuple[str, str] | None:
    """``(trace, parent span)`` of a traceparent header; None when it is none, or all zeros, or of version ff."""
    found = _PARENT.fullmatch(header.strip())
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    if not found[2].strip("0") or not found[3].strip("0"):
        return None
    return found[2], found[3]


def trace_of(request: str) -> str:
    """The trace of a request that brought no traceparent: its id when that is a UUID, else a hash of it."""
    plain = request.replace("-", "").lower()
    if _HEX.fullmatch(plain) and plain.strip("0"):
        return plain
    return hashlib.sha256(request.encode()).hexdigest()[:32]


def span_of(trace: str, *what: str) -> str:
    """The id of one span of a trace, told by what it is: gateway and ops need not talk to agree on it."""
    return hashlib.sha256("\0".join((trace, *what)).encode()).hexdigest()[:16]
