"""Series with labelled incidents: a folder of CSV files, and where in them something was wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from leptonai.errors import NotFound, SpecError
from leptonai.ops.detect.measure import windows_of
from leptonai.ops.detect.table import moment, open_table
from leptonai.protocols import Floats

SHORTEST = 100  # rows; the detectors know nothing of the first 60
WARP = 0.3  # share of the speed; below 1 time never runs back
JITTER = 0.3  # of the median change
Windows = Mapping[str, Sequence[tuple[str | float, str | float]]]


@dataclass(frozen=True)
class Labelled:
    """``at``: seconds, ascending, or the rows' numbers. ``windows``: first and last row of each incident, ascending."""

    name: str
    at: Floats
    values: Floats
    windows: list[tuple[int, int]]
    timed: bool = True  # False: there is no column of times


def read(
    folder: Path, windows: Path | None = None, label: str | None = None, value: str | None = None,
    time: str | None = None,
) -> list[Labelled]:  # fmt: skip
    """Every CSV file under ``folder``, by name. Incidents are of the column ``label``, or of the file ``windows``:
    JSON, for each CSV file pairs of first and last time, [] where nothing happened (as NAB's combined_windows.json).

    SpecError names the file that has no numbers, is constant, shorter than SHORTEST rows, or goes back in time, the
    window that lies outside of its series; and says so where there are no two series, or no label in any.
    """
    if (windows is None) == (label is None):
        raise SpecError(
            "where the incidents were is not told" if label is None else "label and windows are both given",
            hint="label: COLUMN of true and false, or windows: FILE.json of first and last times",
        )
    if not folder.is_dir():
        raise NotFound(f"no folder {folder}", hint="data: a folder of CSV files, one series each")
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.csv"))}
    if len(paths) < 2:
        raise SpecError(
            f"{folder} has {len(paths)} series; what is chosen on one must be judged on another",
            hint="give a CSV file for each series; a long one can be cut",
        )
    told = None if windows is None else _windows(windows)
    for name in () if told is None else told:
        if name not in paths:
            raise SpecError(f"{windows}: there is no series {name!r}", hint=f"{folder} has {', '.join(paths)[:200]}")
    found = []
    for name, path in paths.items():
        if told is not None and name not in told:
            raise SpecError(f"{windows} says nothing of {name}", hint=f'"{name}": [] where nothing happened')
        found.append(_series(name, path, None if told is None else told[name], label, value, time))
    if not any(one.windows for one in found):
        raise SpecError(f"no series in {folder} has a labelled incident", hint="detection is judged by what it finds")
    return found


def _series(
    name: str, path: Path, windows: Sequence[tuple[str | float, str | float]] | None, label: str | None,
    value: str | None, time: str | None,
) -> Labelled:  # fmt: skip
    table = open_table(path, value, time, label)
    chunks = list(table.chunks())
    at, values = (np.concatenate([np.zeros(0), *(getattr(c, of) for c in chunks)]) for of in ("at", "value"))
    seen = values[np.isfinite(values)]
    if len(values) < SHORTEST:
        raise SpecError(f"{path} has {len(values)} rows; {SHORTEST} are the least", hint="detectors must learn first")
    if not len(seen):
        said = f"of column {table.names['value']} none of {len(values)} cells is a number"
        raise SpecError(f"{path}: {said}", hint="value: COLUMN of numbers")
    if seen.min() == seen.max():
        raise SpecError(
            f"{path}: {table.names['value']} is always {seen[0]:g}", hint="a constant tells detectors nothing"
        )
    if not np.isfinite(at).all() or (np.diff(at) < 0).any():
        row = int(np.argmax(~np.isfinite(at[1:]) | ~(np.diff(at) >= 0))) + 1
        raise SpecError(f"{path} row {row}: its time is none, or before that of the row above", hint="sort the rows")
    if windows is None:
        truth = np.concatenate([c.label for c in chunks if c.label is not None])
    else:
        truth = np.zeros(len(at), dtype=np.bool_)
        for pair in windows:
            first, last = (moment(str(edge)) for edge in pair)
            if not at[0] <= first <= last <= at[-1]:
                raise SpecError(
                    f"{path}: the window {pair[0]} to {pair[1]} lies outside of the series, or is none",
                    hint=f"{table.names['time'] or 'rows'}: {chunks[0].text[0]} to {chunks[-1].text[-1]}",
                )
            inside = (at >= first) & (at <= last)
            if not inside.any():
                raise SpecError(f"{path}: there is no row in the window {pair[0]} to {pair[1]}")
            truth |= inside
    return Labelled(name, at, values, windows_of(truth), table.time is not None)


def _windows(path: Path) -> Windows:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, list[tuple[str | float, str | float]]])
    except FileNotFoundError as e:
        raise NotFound(f"no file {path}", hint='JSON: {"press.csv": [["2026-03-01 10:00", "2026-03-01 11:00"]]}') from e
    except OSError as e:
        raise SpecError(f"{path} cannot be read: {e.strerror or e}") from e
    except (msgspec.MsgspecError, UnicodeDecodeError) as e:
        raise SpecError(f"{path}: {e}", hint='JSON: {"press.csv": [["2026-03-01 10:00", "2026-03-01 11:00"]]}') from e


def stretched(one: Labelled, rng: np.random.Generator) -> Labelled:
    """A copy that could have been: another scale, other noise, other speeds. Times and rows stay.

    Scale: log-normal with 0.2. Noise: JITTER of the usual change from row to row (its median). Speed: time runs up to
    WARP faster or slower, by a smooth curve that begins and ends where the series does (window warping: Um et al.,
    ICMI 2017), and the windows go along.
    """
    rows = len(one.values)
    place = np.arange(rows, dtype=np.float64)
    bend = rng.uniform(-WARP, WARP, 2)
    phase = np.pi * place / max(rows - 1, 1)
    from_ = place + (rows - 1) / np.pi * (bend[0] * np.sin(phase) + bend[1] * np.sin(2 * phase) / 2) / 2
    source = np.clip(np.rint(from_), 0, rows - 1).astype(np.int64)
    values = one.values[source]
    change = np.abs(np.diff(one.values))
    usual = float(np.median(change[np.isfinite(change)])) if np.isfinite(change).any() else 0.0
    values = float(np.exp(0.2 * rng.standard_normal())) * (values + JITTER * usual * rng.standard_normal(rows))
    truth = np.zeros(rows, dtype=np.bool_)
    for first, last in one.windows:
        truth[first : last + 1] = True
    return Labelled(f"{one.name} (copy)", one.at, values, windows_of(truth[source]), one.timed)
