r"""From a line to words in which whatever is plainly a value is already ``<*>``, and how words become one.

A word has a display (what a template shows) and a key (what grouping compares). The key is coarser: ``alt0`` and
``alt1`` share ``alt#``, ``tag=RIL`` and ``tag=Audio`` share ``tag=?``. So ``u0`` stays ``u0`` in a template as long as
it never was anything else.

The token classes are those any text of a computer has: numbers, addresses, paths, identifiers in hex, sizes, dates,
``name=value``. None names a system.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

WILD = "<*>"
MAX_CHARS = 4096  # of a line; what is beyond becomes one <*>
MAX_WORDS = 128
_MEMO = 50_000  # words remembered

_HEX = "[0-9A-Fa-f]"

# A number or a hex identifier alone is a value whatever it is. Lines equal up to these are one line to us: that is what
# makes mining cheap. Everything after sees them as 0.
_LONE = re.compile(
    rf"(?<![A-Za-z0-9])(?:{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}|[0-9]+|0[xX]{_HEX}+"
    rf"|(?=[0-9]*[A-Fa-f])(?={_HEX}*[0-9]){_HEX}{{6,}})(?![A-Za-z0-9])",
    re.ASCII,
)
_VALUE = re.compile(
    rf"""
      (?<=://)[^\s"'<>()\[\]{{}},;]+                                                # the rest of a URL
    | (?<![\w.\\])[A-Za-z]:\\[^\s"'<>|,;\])]+                                       # C:\a\b
    | (?<![\w.)\]/~])(?!(?<=:)//)(?:~|\.{{1,2}})?(?:/+[\w.+@~%$-]+){{2,}}/*(?:\?[^\s"'<>]*)?  # /a/b?c=d, ~/a/b
    | (?<![\w.)\]/~])(?:~|\.{{1,2}})/+[\w.+@~%$-]+                                  # ./a
    | (?<![\w:])(?={_HEX}*:{_HEX}*:)(?=[A-Fa-f:]*[0-9])(?:{_HEX}*:){{3,}}{_HEX}+(?![\w:])  # MAC, IPv6
    | (?<![\w:])(?={_HEX}*-{_HEX}*-)(?=[A-Fa-f-]*[0-9])(?:{_HEX}{{2}}-){{5,}}{_HEX}{{2}}(?![\w-])
    | (?<![\w.])[0-9]+(?:\.[0-9]+){{3}}(?::[0-9]+)?(?![\w.]*\w)                     # IPv4, with port
    | (?<![A-Za-z0-9_])[-+]?[0-9]+(?:[.,][0-9]+)*(?![A-Za-z0-9_])
    | (?<![A-Za-z0-9])[0-9]+(?![A-Za-z0-9])
    """,
    re.VERBOSE | re.ASCII,
)
_LIST = re.compile(r"<\*>(?:[,|]<\*>)+")
_UNIT = re.compile(r"(?i)(?:[kmgtp]i?)?b(?:ytes?)?([^\w]*)", re.ASCII)  # how a size is printed depends on the size
_DATE = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)([^\w]*)")
_PAIR = re.compile(r"(?<=\w=)[^\s,;)\]}\"'(\[{]+")
_DIGITS = re.compile(r"(?:<\*>|[0-9])+", re.ASCII)
_WILDS = re.compile(r"(?:<\*>)+")
_WORD = re.compile(r"\S+")
_ODD = re.compile(r"[0-9/\\=<]").search
_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
PREFIX = "\x01"

Words = tuple[str, ...]


class _Lone(dict[str, str]):
    """What stands between two blanks, with every lone value as 0: asked of each word of a new line, known of most."""

    def __missing__(self, part: str) -> str:
        if len(self) >= _MEMO:
            self.clear()
        found = self[part] = _LONE.sub("0", part)
        return found


class _Read(dict[str, tuple[str, str, str]]):
    """What a word of a collapsed line is shown as, compared as, and compared as behind a value ("": no otherwise)."""

    def __missing__(self, word: str) -> tuple[str, str, str]:
        if len(self) >= _MEMO:
            self.clear()
        found = self[word] = _word(word)
        return found


_lone, _known = _Lone(), _Read()


def shapes(text: str) -> str:
    """Every digit as 0, but for that of a hexadecimal prefix: 1x7 is no number. PREFIX marks those."""
    marked = text.replace("0x", f"{PREFIX}x").replace("0X", f"{PREFIX}X") if "0x" in text or "0X" in text else text
    return marked.encode("utf-8", "surrogatepass").translate(_ZEROS).decode("utf-8", "surrogatepass")


def collapse(line: str) -> str:
    """The line with every lone value as 0, cut a little beyond MAX_CHARS."""
    return " ".join(map(_lone.__getitem__, line[: MAX_CHARS + 1].split(" ")))  # no value has a blank in it


def read(line: str) -> tuple[Words, Words]:
    """``(display, key)`` of the words of a collapsed line, at most MAX_WORDS."""
    cut = len(line) > MAX_CHARS
    raw = (line[:MAX_CHARS] if cut else line).split()
    if len(raw) > MAX_WORDS or (cut and raw):
        raw = [*raw[: MAX_WORDS - 1], WILD]
    if not raw:
        return (), ()
    display, key, units = zip(*map(_known.__getitem__, raw), strict=True)
    if any(units):
        behind = ("", *display)
        key = tuple([u if u and b.endswith(WILD) else k for k, u, b in zip(key, units, behind, strict=False)])
    return display, key


def _word(word: str) -> tuple[str, str, str]:
    shown = compared = word
    if _ODD(word):  # else nothing in it can be a value or a pair: most words, and four searches saved
        shown = _LIST.sub(WILD, _VALUE.sub(WILD, word))
        compared = _DIGITS.sub("#", _PAIR.sub("?", shown))
    if date := _DATE.fullmatch(shown):
        compared = f"?D{date[1]}"
    unit = _UNIT.fullmatch(shown)
    return shown, compared, f"?B{unit[1]}" if unit else ""


def is_value(key: str) -> bool:
    """Whether a key shows a value in it: digits, a masked value, the right side of a pair."""
    return "#" in key or "?" in key


def join(a: str, b: str) -> str:
    """The least general display of both: equal parts stay, cut at what is no letter or digit, the rest is ``<*>``."""
    if a == b:
        return a
    if _DIGITS.sub("#", a) == _DIGITS.sub("#", b) and "#" not in a + b:
        return _merge_digits(a, b)
    short = min(len(a), len(b))
    i = 0
    while i < short and a[i] == b[i]:
        i += 1
    while i and (a[i - 1].isalnum() or a[i - 1] in "<*"):
        i -= 1
    j = 0
    while j < short - i and a[-1 - j] == b[-1 - j]:
        j += 1
    while j and (a[-j].isalnum() or a[-j] in "*>"):
        j -= 1
    return _WILDS.sub(WILD, a[:i] + WILD + (a[len(a) - j :] if j else ""))


def _merge_digits(a: str, b: str) -> str:
    other = iter(_DIGITS.findall(b))
    return _DIGITS.sub(lambda m: m[0] if m[0] == next(other) else WILD, a)


def squeeze(words: Sequence[str]) -> Words:
    """Runs of ``<*>`` words as one: templates equal but for the length of a list are equal after it."""
    out: list[str] = []
    for word in words:
        if word != WILD or not out or out[-1] != WILD:
            out.append(word)
    return tuple(out)


def gaps(line: str) -> list[str]:
    """The white space before, between and after the words of a line, as far as ``read`` looks at it."""
    return _WORD.split(line[:MAX_CHARS])


def matches(template: str, line: str) -> bool:
    """Whether ``line`` is of ``template``: ``<*>`` with the white space beside it stands for any text, white space for
    any white space. Time is linear in both."""
    first, *rest = (part.strip() for part in " ".join(template.split()).split(WILD))
    text = " ".join(line.split())
    if not rest:
        return text == first
    if not text.startswith(first):
        return False
    at = len(first)
    for part in rest[:-1]:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return len(text) - at >= len(rest[-1]) and text.endswith(rest[-1])
