"""Forecasts from a rolling origin: ours against seasonal naive and exponential smoothing, at the horizons of scaling.

    python benchmarks/forecast.py --data DIR

A start-up is three samples, and a replica started now is judged over the third and fourth: horizons 3 and 4 scale,
1, 2 and 6 show the neighbourhood. Every method sees the samples one by one; the first 30 % of each series only teach.

MASE: mean absolute error of the median over that of seasonal naive one season ahead within the first 30 %.
WQL: sum of the pinball losses at 0.1, 0.5 and 0.9 over the sum of the truth, times 2/3 (as in GluonTS).
Quantiles of every method: its forecast and the quantiles of its own last 400 errors.
ETS: additive errors, damped additive trend, with and without an additive season (Hyndman and Athanasopoulos, FPP3,
8.4), smoothing parameters by a grid on the first 30 %; per series and horizon the better of the two is shown, in
hindsight. Seasonal naive and ETS are told the period; ours has to find it.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from pathlib import Path

import numpy as np

from leptonai.plan.scale import read
from leptonai.series.forecast import Forecaster

HORIZONS = (1, 2, 3, 4, 6)
SCALING = (3, 4)
LEVELS = (0.1, 0.5, 0.9)
ERRORS, TAUGHT = 400, 0.3
SETS = {  # name -> period in samples
    "realKnownCause/nyc_taxi.csv": 336,
    "realAWSCloudwatch/elb_request_count_8c0756.csv": 288,
    **{f"realTweets/Twitter_volume_{name}.csv": 288 for name in ("AAPL", "CRM", "FB", "IBM", "PFE")},
}
Points = np.ndarray  # [time, horizon]: what was said of time + horizon


def ours(y: np.ndarray) -> np.ndarray:
    """Quantiles ``[time, level, horizon]``."""
    forecaster, out = Forecaster(HORIZONS), np.empty((len(y), len(LEVELS), len(HORIZONS)))
    for t, value in enumerate(y):
        forecaster.step(float(value))
        out[t] = forecaster.quantiles(LEVELS)
    return out


def naive(y: np.ndarray, period: int) -> Points:
    out = np.empty((len(y), len(HORIZONS)))
    for j, h in enumerate(HORIZONS):
        back = period - h if period > 1 else 0
        out[:, j] = np.concatenate((y[:back], y[: len(y) - back]))
    return out


def ets(y: np.ndarray, period: int) -> Points:
    """ETS(A, Ad, A), or ETS(A, Ad, N) with period 1."""
    taught = int(len(y) * TAUGHT)
    grid = itertools.product((0.05, 0.2, 0.5, 0.8), (0.0, 0.02, 0.1), (0.0, 0.05, 0.2) if period > 1 else (0.0,))
    best = min(grid, key=lambda p: np.abs(smooth(y[:taught], period, *p)[1]).mean())
    return smooth(y, period, *best)[0]


def smooth(y: np.ndarray, period: int, alpha: float, beta: float, gamma: float) -> tuple[Points, np.ndarray]:
    damp, values = 0.98, y.tolist()
    first = values[: max(period, 2)]
    level, trend = float(np.mean(first)), 0.0
    seasons = [v - level for v in first] if period > 1 else [0.0]
    sums = [sum(damp**i for i in range(1, h + 1)) for h in HORIZONS]
    out, errors = np.empty((len(values), len(HORIZONS))), np.empty(len(values))
    for t, value in enumerate(values):
        s = t % period
        error = value - (level + damp * trend + seasons[s])
        level, trend = level + damp * trend + alpha * error, damp * trend + alpha * beta * error
        seasons[s] += gamma * (1 - alpha) * error
        errors[t] = error
        out[t] = [level + k * trend + seasons[(t + h) % period] for h, k in zip(HORIZONS, sums, strict=True)]
    return out, errors[period:]


def spread(points: Points, y: np.ndarray) -> np.ndarray:
    """Points with the quantiles of their own past errors: ``[time, level, horizon]``; renewed every 20 samples."""
    out = np.repeat(points[:, None, :], len(LEVELS), axis=1)
    for j, h in enumerate(HORIZONS):
        errors = y[h:] - points[: len(y) - h, j]
        for t in range(h + 1, len(y), 20):
            known = errors[max(0, t - h + 1 - ERRORS) : t - h + 1]
            out[t : t + 20, :, j] += np.quantile(known, LEVELS)
    return np.maximum(out, 0.0)


def score(said: np.ndarray, y: np.ndarray, period: int, j: int) -> tuple[float, float]:
    """``(MASE, WQL)`` at HORIZONS[j] over what was not taught."""
    taught, h = int(len(y) * TAUGHT), HORIZONS[j]
    truth, quantiles = y[taught + h :], said[taught : len(y) - h, :, j]
    scale = np.abs(y[period:taught] - y[: taught - period]).mean()
    wrong = truth[:, None] - quantiles
    levels = np.array(LEVELS)
    pinball = np.maximum(levels * wrong, (levels - 1) * wrong).sum()
    return float(np.abs(wrong[:, 1]).mean() / scale), float(2 / 3 * pinball / truth.sum())


def compare(name: str, y: np.ndarray, period: int) -> int:
    """Print one row a horizon; how many horizons of scaling are not won in both measures."""
    said = {
        "ours": ours(y),
        "naive": spread(naive(y, period), y),
        "ets": spread(ets(y, 1), y),
        "ets season": spread(ets(y, period), y) if period > 1 else None,
    }
    lost = 0
    for j, h in enumerate(HORIZONS):
        scores = {k: score(v, y, period, j) for k, v in said.items() if v is not None}
        etses = [v for k, v in scores.items() if k.startswith("ets")]
        best = (min(v[0] for v in etses), min(v[1] for v in etses))
        won = all(scores["ours"][i] < min(best[i], scores["naive"][i]) for i in (0, 1))
        lost += h in SCALING and not won
        cells = "".join(f"{v[0]:9.3f}{v[1]:7.3f}" for v in (scores["ours"], scores["naive"], best))
        print(f"{name:36s} {h:2d}{'*' if h in SCALING else ' '} {cells}   {'' if won else 'not won'}", flush=True)
    return lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    print(f"{'series':36s} horizon  ours MASE  WQL    naive            best ETS")
    lost = 0
    for name, period in SETS.items():
        path = options.data / "nab" / "data" / name
        if not path.exists():
            print(f"{path} is absent, left out")
            continue
        with path.open() as file:
            y = np.array([float(row["value"]) for row in csv.DictReader(file)])
        lost += compare(path.stem, y, period)
    azure = options.data / "traces" / "AzureLLMInferenceTrace_code.csv"
    if azure.exists():
        arrivals = read(azure).arrivals
        lost += compare("Azure code, arrivals in 10 s", np.bincount((arrivals // 10).astype(int)).astype(float), 1)
    else:
        print(f"{azure} is absent, left out")
    print(f"rows of scaling horizons (*) not won in both measures: {lost}")


if __name__ == "__main__":
    main()
