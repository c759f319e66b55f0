"""Windows of a machine's three sensors, and the first models: ``python train.py``.

A simulated machine, seeded: 64 samples of vibration, current and temperature at a time, told as amplitude spectra.
The first model knows one speed and one load; ``data/new.npz`` was labelled since, at all speeds and loads.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leptonai.improve.train.job import parse, train

HERE = Path(__file__).parent
CONDITIONS = ("healthy", "imbalance", "misalignment", "bearing", "looseness")
SAMPLES = 64
JOBS = {
    "svm": {"estimator": "sklearn.svm.SVC", "args": {"C": 10}},
    "forest": {"estimator": "sklearn.ensemble.RandomForestClassifier", "args": {"n_estimators": 60}},
    "net": {"module": "net.py", "rate": 3e-3},
}


def window(rng: np.random.Generator, condition: str, speed: float, load: float) -> NDArray[np.float64]:
    """Log amplitudes of one window: 33 bins of each sensor. ``speed``: turns a window; a fault shows at its own
    multiples of it."""
    t = np.arange(SAMPLES) / SAMPLES

    def tone(times: float, size: float) -> NDArray[np.float64]:
        return size * np.sin(2 * np.pi * (speed * times * t + rng.random()))

    vibration = tone(1, 0.6 * load) + 0.4 * rng.normal(size=SAMPLES)
    current = tone(2, load) + 0.3 * rng.normal(size=SAMPLES)
    heat = 0.5 * load + 0.1 * rng.normal(size=SAMPLES)
    if condition == "imbalance":
        vibration += tone(1, 1.2)
    elif condition == "misalignment":
        vibration += tone(2, 0.9)
        current += tone(2, 0.5)
    elif condition == "bearing":
        vibration += tone(3.6, 0.7) + tone(5.4, 0.4)
        heat += 0.4
    elif condition == "looseness":
        vibration += tone(0.5, 0.5) + tone(1.5, 0.5)
    return np.log1p(np.abs(np.fft.rfft(np.stack([vibration, current, heat])))).reshape(-1)


def windows(rng: np.random.Generator, count: int, varied: bool) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    y = rng.integers(len(CONDITIONS), size=count)
    speed, load = (rng.uniform(3, 7, count), rng.uniform(0.5, 1.5, count)) if varied else (np.full(count, 4.0),) * 2
    load = load if varied else np.ones(count)
    x = [window(rng, CONDITIONS[k], s, p) for k, s, p in zip(y, speed, load, strict=True)]
    return np.array(x, np.float32), y


def main(rows: int = 1000, epochs: int = 15, jobs: tuple[str, ...] = tuple(JOBS)) -> None:
    data, model = HERE / "data", HERE / "model"
    data.mkdir(exist_ok=True)
    model.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for name, count, varied in (
        ("base", rows, False), ("new", 3 * rows, True), ("test", 800, True), ("live", 400, True)
    ):  # fmt: skip
        x, y = windows(rng, count, varied)
        np.savez(data / f"{name}.npz", x=x, y=y)
    with (data / "live.jsonl").open("w") as file:
        for row, label in zip(x.tolist(), y.tolist(), strict=True):
            file.write(json.dumps({"body": [[round(v, 4) for v in row]], "label": label}) + "\n")
    for name in jobs:
        job = JOBS[name]
        more = {"epochs": epochs} if "module" in job else {}
        done = train(parse({"data": "data/base.npz", **job, **more}, name), HERE, HERE / f"first-{name}")
        print(f"{name}: {done.quality:.1%} of the windows held out, all at one speed")
    shutil.copy(HERE / "first-svm" / "model.skops", model)


if __name__ == "__main__":
    main()
