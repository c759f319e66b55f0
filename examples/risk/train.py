"""Applicants for loans as CSV, and the first model: ``python train.py``. They are drawn, seeded; nobody's data.

``data/applicants.csv`` says what was known when they applied. ``data/export.csv`` is newer and has a mistake that is
made every day: its ``calls`` were counted until now, so they hold the calls of the collection department after a
default. A model that learns from it looks excellent on any rows of that export, and is useless for applicants.
"""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leptonai.improve.train.job import parse, train

HERE = Path(__file__).parent
COLUMNS = ("age", "income", "burden", "years", "utilisation", "late_payments", "inquiries", "calls")


def applicants(rng: np.random.Generator, count: int, later: bool) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Columns as in COLUMNS, and who defaulted. ``later``: ``calls`` were counted after that."""
    age, income = rng.uniform(20, 70, count), np.exp(rng.normal(10.4, 0.5, count))
    burden, years = rng.beta(2, 6, count), rng.poisson(6, count)  # instalments over income; with the employer
    utilisation, late = rng.beta(2, 3, count), rng.poisson(0.7, count)
    inquiries, calls = rng.poisson(1.2, count), rng.poisson(1.0, count)
    odds = -9 + 16 * burden + 5 * utilisation + 3 * late + 0.3 * inquiries - 0.1 * years
    default = (odds + rng.logistic(0, 0.2, count) > 0).astype(np.int64)
    if later:
        calls = calls + default * (6 + rng.poisson(4.0, count))
    return np.stack([age, income, burden, years, utilisation, late, inquiries, calls], 1).round(3), default


def write(path: Path, x: NDArray[np.float64], y: NDArray[np.int64]) -> None:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([*COLUMNS, "default"])
        out.writerows([*row, label] for row, label in zip(x.tolist(), y.tolist(), strict=True))


def main(rows: int = 3000) -> None:
    data, model = HERE / "data", HERE / "model"
    data.mkdir(exist_ok=True)
    model.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for name, count, later in (("applicants", rows, False), ("export", rows, True), ("export-test", 1000, True)):
        write(data / f"{name}.csv", *applicants(rng, count, later))
    x, y = applicants(rng, 500, False)
    with (data / "live.jsonl").open("w") as file:
        for row, label in zip(x.tolist(), y.tolist(), strict=True):
            file.write(json.dumps({"body": [row], "label": label}) + "\n")
    job = parse(
        {
            "data": "data/applicants.csv", "label": "default",
            "estimator": "sklearn.ensemble.GradientBoostingClassifier", "args": {"n_estimators": 80},
        },
        "train.py",
    )  # fmt: skip
    done = train(job, HERE, HERE / "first")
    shutil.copy(HERE / "first" / done.model, model)
    print(f"first model: {done.quality:.1%} of the applicants held out")


if __name__ == "__main__":
    main()
