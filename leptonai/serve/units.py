"""Durations and sizes as people write them."""

from __future__ import annotations

import math
import re

_NUMBER = r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*"
_TEXT = re.compile(_NUMBER + r"([A-Za-z]*)\s*")
_SECONDS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_DECIMAL = {f"{p}{b}": 1000**i for i, p in enumerate(["", "K", "M", "G", "T"]) for b in ("B", "")}
_BINARY = {f"{p}i{b}": 1024 ** (i + 1) for i, p in enumerate("KMGT") for b in ("B", "")}
_BYTES = {k.lower(): v for k, v in (_DECIMAL | _BINARY).items()}


def _either_case(word: str) -> str:
    return "".join(f"[{c}{c.upper()}]" for c in word)


# What is read below, for those who check texts by a pattern. In the syntax that Python and RE2 share.
DURATION = f"^{_NUMBER}({'|'.join(_SECONDS)})\\s*$"
SIZE = f"^{_NUMBER}({'|'.join(map(_either_case, _BYTES))})\\s*$"


def duration(text: str) -> float:
    """Seconds in ``"250ms"``, ``"30s"``, ``"5m"``, ``"1.5h"``, ``"30d"``. ValueError says what was expected."""
    match = _TEXT.fullmatch(text)
    if not match or match[2] not in _SECONDS:
        raise ValueError(f"{text!r} is no duration; write seconds, or a number with ms, s, m, h, d or w, as in 30s")
    return float(match[1]) * _SECONDS[match[2]]


def size(text: str) -> int:
    """Bytes in ``"512MB"`` (decimal) or ``"1GiB"``, ``"1Gi"`` (binary). ValueError says what was expected."""
    match = _TEXT.fullmatch(text)
    if not match or match[2].lower() not in _BYTES:
        raise ValueError(f"{text!r} is no size; write bytes, or a number with KB, MB, GB, KiB, MiB or GiB, as in 512MB")
    found = float(match[1]) * _BYTES[match[2].lower()]
    if math.isinf(found):
        raise ValueError(f"{text!r} is more than any number here")
    return int(found)
