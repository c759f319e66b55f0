"""Templates of a whole log file in two passes: learn all lines, then say of each which template it is of."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from leptonai.errors import NotFound, SpecError
from leptonai.ops.logs.miner import Miner, Template

BLOCK = 1 << 20  # bytes read at once
LONGEST = 1 << 20  # bytes of a line that are looked at
_PROBE = 1 << 16  # bytes in which a NUL says that this is no text

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Mined:
    """``templates``: most frequent first. ``odd``: what was not plain UTF-8 text, and how many lines of it."""

    lines: int
    templates: list[Template]
    odd: dict[str, int]


def mine_file(path: Path, out: Path, progress: Progress = lambda read: None) -> Mined:
    """Write ``line,template_id,template`` for every line of ``path`` to ``out``, lines from 1, in order.

    Ids and templates are those known after the last line; ids count from 1 in order of first appearance. The file is
    read twice: ``progress`` is told the bytes read of both passes. ``out`` appears whole or not at all. Raises
    NotFound, and SpecError for what is no text or cannot be written.
    """
    encoding = _encoding(path)
    if out.exists() and out.samefile(path):
        raise SpecError(f"--out {out} is the log itself", hint="name another file")
    odd: Counter[str] = Counter()
    miner = Miner()
    for block in _lines(path, encoding, progress, odd):
        miner.add_many(block)
    miner.settle()
    size = path.stat().st_size
    counts: Counter[int] = Counter()
    number: dict[int, int] = {}
    texts: dict[int, str] = {}
    line = 0
    new = out.with_name(out.name + ".new")
    try:
        with new.open("w", encoding="utf-8", newline="") as file:
            write = csv.writer(file, lineterminator="\n").writerows
            file.write("line,template_id,template\n")
            for block in _lines(path, encoding, lambda read: progress(size + read), Counter()):
                ids = miner.match(block)
                for id in dict.fromkeys(ids):
                    if id not in number:
                        number[id] = len(number) + 1
                        texts[id] = miner.text(id)
                counts.update(ids)
                write([line + i, number[id], texts[id]] for i, id in enumerate(ids, 1))
                line += len(ids)
        new.replace(out)
    except OSError as e:
        raise SpecError(f"cannot write {out}: {e.strerror or e}", hint="choose another --out") from None
    finally:
        new.unlink(missing_ok=True)
    found = [Template(id=number[i], text=texts[i], count=n) for i, n in counts.items()]
    return Mined(lines=line, templates=sorted(found, key=lambda t: (-t.count, t.id)), odd=dict(odd))


def _encoding(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(_PROBE)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as e:
        raise SpecError(f"cannot read {path}: {e.strerror or e}", hint="name a log file") from None
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\0" in start:
        raise SpecError(
            f"{path} is no text: a NUL byte at {start.index(0):,}",
            hint="unpack or convert it first; one message a line",
        )
    return "utf-8"


def _lines(path: Path, encoding: str, progress: Progress, odd: Counter[str]) -> Iterator[list[str]]:
    """Blocks of lines without their ends. Bytes that are no text become U+FFFD."""
    if encoding == "utf-16":
        with path.open(encoding="utf-16", errors="replace", newline="") as text:
            while part := text.readlines(BLOCK):
                yield [line.rstrip("\n").removesuffix("\r")[:LONGEST] for line in part]
        progress(path.stat().st_size)
        return
    with path.open("rb") as file:
        first = True
        for raw in _raw(file, odd):
            block = [line.removesuffix(b"\r") for line in raw]
            if first and block:
                block[0], first = block[0].removeprefix(b"\xef\xbb\xbf"), False
            try:
                lines = b"\n".join(block).decode().split("\n") if block else []
            except UnicodeDecodeError:
                lines = [line.decode("utf-8", "replace") for line in block]
                odd["lines with bytes that are not UTF-8"] += sum("\ufffd" in line for line in lines)
            yield lines
            progress(file.tell())


def _raw(file: BinaryIO, odd: Counter[str]) -> Iterator[list[bytes]]:
    rest = b""
    cut = False  # the line being read is longer than LONGEST: its rest is passed over
    while block := file.read(BLOCK):
        *lines, tail = block.split(b"\n")
        if lines:
            lines[0] = rest if cut else rest + lines[0]
            rest, cut = tail, False
            yield lines
        elif not cut:
            rest += tail
        if len(rest) > LONGEST and not cut:
            odd[f"lines longer than {LONGEST:,} bytes, cut"] += 1
            rest, cut = rest[:LONGEST], True
    if rest:
        yield [rest]
