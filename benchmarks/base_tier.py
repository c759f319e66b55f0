"""What the base tier costs: share of one core at 1 Hz, microseconds and bytes a series, at three sizes.

    python benchmarks/base_tier.py [--steps 30] [--data FOLDER]

``--data``: a folder of NAB's ``data/**/*.csv``; a smoke run over every file prints how many points score 4 and more.
It tunes nothing and judges nothing.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np

from leptonai.ops.detect import Watcher, base_tier
from leptonai.types import Signal

WARM = 70  # steps, so that every voter is past its cold start


def columnar(series: int, steps: int) -> tuple[float, float]:
    """Median CPU seconds of one step, and bytes of state a series."""
    rng = np.random.default_rng(0)
    tier = base_tier()
    tier.open(series)
    learn = np.ones(series, dtype=np.bool_)
    # a third each of noise, counts and a random walk, so that the branches for runs and shifts are taken too
    third = series // 3
    walk = np.zeros(series - 2 * third)
    spent = []
    for t in range(WARM + steps):
        walk += rng.standard_normal(walk.size)
        x = np.concatenate((rng.standard_normal(third), rng.poisson(3.0, third).astype(float), walk))
        before = time.process_time()
        tier.step(float(t), x, learn)
        if t >= WARM:
            spent.append(time.process_time() - before)
    held = sum(member.nbytes for member in tier.members)  # type: ignore[attr-defined]
    return float(np.median(spent)), held / series


def watched(series: int, steps: int) -> float:
    """Median CPU seconds of one Watcher.step: signals to slots, scores, onsets, missing data."""
    rng = np.random.default_rng(0)
    watcher = Watcher()
    names = [("replica_compute_seconds", {"service": f"s{i % 100}", "replica": f"r{i}"}) for i in range(series)]
    spent = []
    for t in range(WARM + steps):
        values = rng.standard_normal(series).tolist()
        signals = [Signal(name=n, labels=ls, at=float(t), value=v) for (n, ls), v in zip(names, values, strict=True)]
        before = time.process_time()
        watcher.step(float(t), signals)
        if t >= WARM:
            spent.append(time.process_time() - before)
    return float(np.median(spent))


def smoke(folder: Path) -> None:
    for path in sorted(folder.rglob("*.csv")):
        with path.open() as file:
            values = np.array([float(row["value"]) for row in csv.DictReader(file)])
        tier = base_tier()
        tier.open(1)
        learn = np.ones(1, dtype=np.bool_)
        scores = np.array([tier.step(float(t), values[t : t + 1], learn).score[0] for t in range(len(values))])
        share = float(np.nanmean(scores >= 4))
        print(f"{path.parent.name}/{path.name:50s} {len(values):6d} points, {share:8.4%} at 4 or more")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    print("series     ms a step   share of a core at 1 Hz   us a series   bytes a series")
    cost = {}
    for series in (1_000, 10_000, 100_000):
        seconds, size = columnar(series, options.steps)
        cost[series] = seconds / series
        print(f"{series:7,d}   {seconds * 1e3:9.2f}   {seconds:22.2%}   {cost[series] * 1e6:11.3f}   {size:14.0f}")
    print(f"flatness: a series costs {cost[100_000] / cost[1_000]:.2f}x at 100,000 what it costs at 1,000")
    seconds = watched(10_000, options.steps)
    print(f"Watcher.step over 10,000 signals: {seconds * 1e3:.1f} ms, {seconds:.2%} of a core (wanted: < 10 %)")
    if options.data:
        smoke(options.data)


if __name__ == "__main__":
    main()
