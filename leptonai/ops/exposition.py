"""Prometheus text, read fast: names and labels are parsed once and remembered, values each time.

Source: the text-based exposition format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

Buckets = list[tuple[float, float]]  # (upper bound, count up to it), ascending, the last bound infinite
Sample = tuple[str, dict[str, str], float]

_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")


def parse(text: str) -> Iterator[Sample]:
    """Every sample of the page, in its order. Lines that are not samples are passed over: a page is never refused."""
    for line in text.split("\n"):
        if not line or line[0] == "#":
            continue
        end = line.rfind("}") + 1
        start, tail = (line[:end], line[end:].split()) if end else (line.partition(" ")[0], line.split()[1:])
        try:
            value = float(tail[0])
        except (ValueError, IndexError):
            continue
        name, labels = head(start)
        yield name, labels, value


@lru_cache(maxsize=1 << 16)
def head(text: str) -> tuple[str, dict[str, str]]:
    """Name and labels of a sample's head, ``name{label="value"}``."""
    name, _, inside = text.partition("{")
    return name, {key: _ESCAPE.sub(_unescape, value) for key, value in _LABEL.findall(inside)}


def _unescape(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]
