"""Forecasts with bands of one column of a CSV file: how much will be needed, and when a limit is reached."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leptonai.errors import SpecError
from leptonai.ops.detect.table import Table, open_table
from leptonai.protocols import Floats
from leptonai.series.forecast import Forecaster

KEPT = 20_000  # newest rows that are learnt from
LEAST = 32  # rows without which a forecast is a guess
HORIZONS = 8  # at most, spread evenly in the logarithm


@dataclass(frozen=True)
class Forecast:
    """``quantile[level, horizon]`` of the value ``horizon`` rows after the last one."""

    table: Table
    rows: int
    last: float  # unix seconds or whatever the time column counts; the row's number without one
    step: float  # median between rows, in the same unit
    horizon: tuple[int, ...]
    mean: Floats
    levels: tuple[float, ...]
    quantile: Floats
    season: tuple[float, ...]  # periods found, in rows

    def at(self, horizon: int) -> float:
        """When that is."""
        return self.last + horizon * self.step

    def reaches(self, limit: float) -> list[int | None]:
        """Per level, the first horizon at which that quantile is at ``limit`` or beyond; None: at none of them."""
        return [
            next((h for h, q in zip(self.horizon, row, strict=True) if q >= limit), None)
            for row in self.quantile.tolist()
        ]

    def document(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "columns": self.table.names,
            "season_rows": list(self.season),
            "forecast": [
                {
                    "rows_ahead": h,
                    "at": self.at(h),
                    "mean": float(self.mean[i]),
                    "quantiles": {str(level): float(self.quantile[k, i]) for k, level in enumerate(self.levels)},
                }
                for i, h in enumerate(self.horizon)
            ],
        }


def forecast_file(
    path: str | Path,
    *,
    value: str | None = None,
    time: str | None = None,
    ahead: int = 24,
    levels: tuple[float, ...] = (0.1, 0.5, 0.9),
    progress: Callable[[int], None] = lambda position: None,
) -> Forecast:
    """Forecasts up to ``ahead`` rows after the last, learnt from the newest KEPT rows (``series.forecast``).

    Bands are the quantiles of the forecast's own past errors. Rows are taken in file order; missing ones as forecast.
    Raises NotFound and SpecError as ``open_table`` does, and SpecError below LEAST rows with numbers.
    """
    if ahead < 1 or not levels or not all(0 < level < 1 for level in levels):
        raise SpecError(f"ahead {ahead}, levels {levels}", hint="at least one row ahead, and levels between 0 and 1")
    table = open_table(Path(path), value, time, None)
    newest: deque[float] = deque(maxlen=KEPT)
    times: deque[float] = deque(maxlen=KEPT)
    rows = 0
    for chunk in table.chunks():
        newest.extend(chunk.value.tolist())
        times.extend(chunk.at.tolist())
        rows += len(chunk.value)
        progress(chunk.position)
    x, at = np.array(newest), np.array(times)
    known = np.isfinite(x)
    if known.sum() < LEAST:
        raise SpecError(f"{path} has {int(known.sum())} rows with numbers; a forecast needs {LEAST}")
    floor = min(0.0, float(x[known].min()))  # the forecaster is of rates and counts: from zero up
    spread = 3.0 * float(x[known].std()) if floor < 0 else 0.0
    shift = floor - spread
    horizons = tuple(int(h) for h in np.unique(np.round(np.geomspace(1, ahead, HORIZONS)).astype(int)))
    forecaster = Forecaster(horizons)
    for v in (x - shift).tolist():
        forecaster.step(v)
    gaps = np.diff(at[np.isfinite(at)])
    step = float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else 1.0
    last = float(at[np.isfinite(at)].max()) if np.isfinite(at).any() else float(rows - 1)
    quantile = np.maximum.accumulate(forecaster.quantiles(tuple(sorted(levels))), axis=0) + shift
    return Forecast(
        table, rows, last, step, horizons, forecaster.mean() + shift, tuple(sorted(levels)), quantile, forecaster.season
    )
