"""Scores of peers' streaming detectors, each made in an environment of its own, for ``detectors.py --peers``.

    pip install river numpy                # one environment; nothing of leptonai is needed there
    pip install salesforce-merlion         # another one, where it installs
    python benchmarks/nab_peers.py --data FOLDER --peer river --out river.npz

Every row is scored before it is learnt. river: half-space trees over the newest 8 values scaled by the least and
greatest so far (its documented pipeline), and the absolute deviation from a running mean and standard deviation.
Merlion: its default detector for one variable, trained on the probation (15 %, 750 rows at most), as its tutorial does.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import deque
from pathlib import Path

import numpy as np


def half_space_trees(x):  # type: ignore[no-untyped-def]
    from river import anomaly, compose, preprocessing

    model = compose.Pipeline(preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(n_trees=25, window_size=250, seed=1))
    newest, out = deque([float(x[0])] * 8, maxlen=8), []
    for value in x.tolist():
        newest.append(value)
        row = dict(enumerate(newest))
        out.append(model.score_one(row))
        model.learn_one(row)
    return np.array(out)


def standard_deviation(x):  # type: ignore[no-untyped-def]
    from river import anomaly

    model, out = anomaly.StandardAbsoluteDeviation(), []
    for value in x.tolist():
        out.append(model.score_one(None, value))
        model.learn_one(None, value)
    return np.nan_to_num(np.abs(np.array(out)))


def merlion(x, at):  # type: ignore[no-untyped-def]
    import pandas as pd
    from merlion.models.defaults import DefaultDetector, DefaultDetectorConfig
    from merlion.utils import TimeSeries

    frame = pd.DataFrame({"value": x}, index=pd.to_datetime(at))
    frame = frame[~frame.index.duplicated(keep="last")].sort_index()
    taught = min(int(0.15 * len(x)), 750)
    model = DefaultDetector(DefaultDetectorConfig())
    model.train(TimeSeries.from_pd(frame.iloc[:taught]))
    told = model.get_anomaly_score(TimeSeries.from_pd(frame.iloc[taught:])).to_pd().iloc[:, 0].abs()
    told = told.reindex(pd.to_datetime(at)).fillna(0.0).to_numpy()
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", choices=["river", "merlion"], required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    root, out = given.data / "nab", {}
    for name in sorted(json.loads((root / "labels" / "combined_windows.json").read_text())):
        with (root / "data" / name).open() as file:
            rows = list(csv.DictReader(file))
        x = np.array([float(r["value"]) for r in rows])
        if given.peer == "river":
            out[f"river half-space trees|{name}"] = half_space_trees(x)
            out[f"river standard deviation|{name}"] = standard_deviation(x)
        else:
            out[f"Merlion default|{name}"] = merlion(x, [r["timestamp"] for r in rows])
        print(name, flush=True)
    np.savez(given.out, **out)


if __name__ == "__main__":
    main()
