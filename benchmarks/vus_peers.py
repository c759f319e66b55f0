"""Scores of TSB-AD's POLY and Sub-PCA, made in an environment of their own, for ``vus.py --peers``.

    pip install TSB-AD 'numpy<2'      # in a separate environment; nothing of leptonai is needed there
    python benchmarks/vus_peers.py --data FOLDER --out peers.npz

Hyper-parameters are those TSB-AD 1.5 names best for one variable: period of rank 1, power 4, all components.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from TSB_AD.models.PCA import PCA
from TSB_AD.models.POLY import POLY
from TSB_AD.utils.slidingWindows import find_length_rank


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    root = given.data / "nab"
    out = {}
    for name, windows in sorted(json.loads((root / "labels" / "combined_windows.json").read_text()).items()):
        if not windows:
            continue
        with (root / "data" / name).open() as file:
            x = np.array([[float(r["value"])] for r in csv.DictReader(file)])
        width = find_length_rank(x, rank=1)
        for peer, model in (("POLY", POLY(power=4, window=width)), ("Sub-PCA", PCA(slidingWindow=width))):
            model.fit(x)
            scores = np.ravel(model.decision_scores_)
            short = len(x) - len(scores)
            out[f"{peer}|{name}"] = np.pad(scores, (short - short // 2, short // 2), "edge")
    np.savez(given.out, **out)


if __name__ == "__main__":
    main()
