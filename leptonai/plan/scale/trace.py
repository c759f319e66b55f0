"""Arrival traces: the first column of a CSV file as seconds, whatever a person is likely to have written there."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from leptonai.errors import SpecError
from leptonai.protocols import Floats
from leptonai.types import Noun

LIMIT = 20_000_000  # arrivals; about 2 GB while they are replayed
# As seconds since 1970 these would be dates after the year 5000: what so large a number counts instead.
UNITS = ((1e17, "nanoseconds", 1e9), (1e14, "microseconds", 1e6), (1e11, "milliseconds", 1e3))


class Trace(Noun, frozen=True, kw_only=True):
    """``arrivals``: seconds, ascending, the first is 0. ``unsorted``: rows that came before an earlier one."""

    arrivals: Floats
    began: float  # the first time stamp as written: unix seconds if the file has dates
    unsorted: int
    header: bool
    unit: str  # of the numbers in the file: seconds, or what UNITS says of those since 1970


def read(path: Path) -> Trace:
    """Every row's first column, sorted. One header line and empty lines are passed over; nothing else is.

    Time stamps are numbers (seconds; milliseconds, microseconds or nanoseconds since 1970 are told by their size) or
    ISO date-times (without a zone: UTC), all of one kind. SpecError names the line that is neither, and a file that
    cannot be read or holds no time stamp.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return parse(csv.reader(file), str(path))
    except OSError as e:
        raise SpecError(f"{path}: {e.strerror or e}", hint="name a CSV file whose first column is arrival times") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise SpecError(f"{path} is not a CSV text file: {e}", hint="the first column is when each request came") from e


def parse(rows: Iterable[list[str]], name: str = "trace") -> Trace:
    """As ``read``, from rows that are already split."""
    cells = _first_cells(rows)
    found = next(cells, None)
    if found is None:
        raise SpecError(f"{name} holds no row", hint="wanted one arrival time a row in the first column")
    values: list[float] = []
    header = _number(found[1]) is None and _date(found[1]) is None
    if header:
        found = next(cells, None)
        if found is None:
            raise SpecError(f"{name} holds a header and no time stamp")
    number, text = found
    convert, kind = (_number, "a number of seconds") if _number(text) is not None else (_date, "an ISO date-time")
    while True:
        value = convert(text)
        if value is None:
            also = " as in the rows before" if values else ""
            raise SpecError(
                f"{name}, line {number}: {text[:60]!r} is not {kind if values else 'a time'}{also}",
                hint="the first column holds arrival times: seconds, or date-times as 2024-01-31 08:15:00.5",
            )
        values.append(value)
        if len(values) > LIMIT:
            raise SpecError(f"{name} holds more than {LIMIT:,} arrivals", hint="replay a part of it")
        following = next(cells, None)
        if following is None:
            break
        number, text = following
    at = np.array(values)
    unsorted = int((np.diff(at) < 0).sum())
    if unsorted:
        at = np.sort(at)
    unit, per_second = next(((unit, n) for least, unit, n in UNITS if at[0] >= least), ("seconds", 1.0))
    at = at / per_second
    span = float(at[-1] - at[0])
    if not math.isfinite(span) or span > 10 * 366 * 86400.0:
        raise SpecError(
            f"{name} spans {span:.3g} s, wanted 10 years at most",
            hint="numbers are taken as seconds; divide milliseconds or nanoseconds first",
        )
    return Trace(arrivals=at - at[0], began=float(at[0]), unsorted=unsorted, header=header, unit=unit)


def _first_cells(rows: Iterable[list[str]]) -> Iterator[tuple[int, str]]:
    for number, row in enumerate(rows, 1):
        if row and any(cell.strip() for cell in row):
            yield number, row[0].strip()


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _date(text: str) -> float | None:
    head, dot, rest = text.partition(".")
    if dot:  # fractions finer than a microsecond are cut: datetime knows no more
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        text = f"{head}.{digits[:6].ljust(6, '0')}{rest[len(digits) :]}"
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
