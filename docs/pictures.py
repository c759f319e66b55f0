"""Makes the pictures of docs/detectors.md from synthetic data: python docs/pictures.py [FOLDER] (extra: plot)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leptonai.ops.detect.ar import Ar
from leptonai.ops.detect.autoencoder import Autoencoder
from leptonai.ops.detect.bocpd import Bocpd
from leptonai.ops.detect.correlation import Mahalanobis, Pca
from leptonai.ops.detect.cusum import Cusum
from leptonai.ops.detect.ewma import Ewma
from leptonai.ops.detect.exemplar import Exemplar
from leptonai.ops.detect.exhaustion import Exhaustion
from leptonai.ops.detect.forest import IsolationForest, RandomForest
from leptonai.ops.detect.groups import Grouped
from leptonai.ops.detect.missing import Missing
from leptonai.ops.detect.oneclass import OneClass
from leptonai.ops.detect.quantile import Quantile
from leptonai.ops.detect.rarity import Rarity
from leptonai.ops.detect.seasonal import Seasonal
from leptonai.ops.detect.slotted import Slotted
from leptonai.ops.detect.threshold import Threshold
from leptonai.ops.detect.volatility import Volatility
from leptonai.ops.detect.words import Vocabulary
from leptonai.protocols import Floats

RNG = np.random.default_rng(20)
N = 900


def noise(columns: int = 1, rows: int = N) -> Floats:
    return RNG.standard_normal((rows, columns))


def memory() -> Floats:
    x = noise()
    for t in range(1, N):
        x[t] += 0.95 * x[t - 1]
    x[700:703] += 7.0
    return x


def changed(x: Floats, rows: slice, by: float | Floats) -> Floats:
    x[rows] += by
    return x


def daily() -> Floats:
    x = 10 + 5 * np.sin(np.arange(N) / 100 * 2 * np.pi)[:, None] + 0.4 * noise()
    return changed(x, slice(675, 700), 5.0)  # high where it should be low: an ordinary value at an unusual hour


def shapes() -> Floats:
    x = np.sin(np.arange(N) / 60 * 2 * np.pi)[:, None] + 0.05 * noise()
    x[640:720] = 0.3
    return x


def volatile() -> Floats:
    x = noise()
    x[600:] *= 2.5
    return x


def filling() -> Floats:
    return 40 + changed(0.3 * noise(), slice(300, N), 0.09 * np.arange(N - 300)[:, None])


def silent() -> Floats:
    x = noise()
    x[600:640] = np.nan
    x[RNG.integers(0, 600, 20)] = np.nan
    return x


def lines() -> Floats:
    x = RNG.poisson(0.02, (N, 1)).astype(np.float64)
    x[700:710] = 4
    return x


def curved() -> Floats:
    factor = noise()
    x = np.hstack([factor, -factor, np.tanh(2 * factor), factor]) + 0.2 * noise(4)
    x[700:705, :2] = -1.3
    return x


def related() -> Floats:
    x = noise() + 0.4 * noise(4)
    x[700:705] = (1.5, 1.5, 1.5, -1.5)
    return x


def far() -> Floats:
    x = noise() + 0.4 * noise(4)
    x[700:705, 2] += 5
    return x


SCENES: dict[str, tuple[Callable[[], Slotted], Callable[[], Floats], str]] = {
    "threshold": (lambda: Threshold(upper=3.5), lambda: changed(noise(), slice(700, 705), 4.0), "a stated limit"),
    "quantile": (Quantile, lambda: changed(noise(), slice(700, 702), 5.0), "beyond what ever was"),
    "ewma": (Ewma, lambda: changed(noise(), slice(600, N), 7.0), "a level shift, adopted after 60 steps"),
    "ar": (Ar, memory, "a jump in a series that wanders"),
    "garch": (Volatility, volatile, "the variance regime changes"),
    "seasonal": (lambda: Seasonal(bins=20, day=100.0, weekly=False), daily, "an ordinary value at an unusual hour"),
    "novelty": (lambda: Exemplar(every=6), shapes, "a shape that never was"),
    "cusum": (Cusum, lambda: changed(noise(), slice(600, N), 1.2), "a small shift that lasts"),
    "exhaustion": (lambda: Exhaustion(limit=100.0, horizon=600.0), filling, "a slow fill towards the limit 100"),
    "missing": (Missing, silent, "silence of a regular series"),
    "rarity": (Rarity, lines, "log lines of a rare template, in a burst"),
    "mahalanobis": (Mahalanobis, related, "four members; one goes against the others"),
    "pca": (Pca, related, "the same, outside the components"),
    "isolation_forest": (IsolationForest, far, "one of four members far out"),
    "random_forest": (RandomForest, related, "members that do not belong together"),
    "one_class_svm": (OneClass, far, "one of four members far out"),
    "bocpd": (Bocpd, lambda: changed(noise(), slice(600, N), 1.5), "a new regime begins: its level is another"),
    "autoencoder": (Autoencoder, curved, "members on a curve; two of them leave it"),
}


def draw(name: str, path: Path) -> None:
    """One picture: the series above, with what was expected; the score below, with the alarm at 3."""
    make, scene, title = SCENES[name]
    x, detector = scene(), make()
    detector.open(x.shape[1])
    if isinstance(detector, Grouped) and x.shape[1] > 1:
        detector.assign(np.arange(x.shape[1]), 0)
    every = np.ones(x.shape[1], dtype=np.bool_)
    told = [detector.step(float(t), row, every) for t, row in enumerate(x)]
    score = np.array([np.nan_to_num(t.score, nan=-1.0).max() for t in told])
    expected = np.array([t.expected[0] for t in told])
    upper, save = sheet(f"{name}: {title}", score)
    upper.plot(x, linewidth=0.6, color="#1f4e79" if x.shape[1] == 1 else None)
    if x.shape[1] == 1 and name != "exhaustion":
        upper.plot(expected, linewidth=0.9, color="#e08e0b")
    save(path / f"{name}.png")


def draw_words(path: Path) -> None:
    """Lines of one template with one of six names each; two unheard-of names. Above, which name a line has."""
    heard = ["alice", "bob", "carol", "dave", "erin", "frank"]
    names = [heard[i] for i in RNG.integers(0, 6, 2000)]
    names[1400], names[1700] = "mallory", "trudy"
    score = Vocabulary().score([f"session of {name} opened" for name in names])
    upper, save = sheet("words: two names never read before, in a known template", score)
    every = [*heard, "mallory", "trudy"]
    upper.plot([every.index(name) for name in names], ".", markersize=1.5, color="#1f4e79")
    upper.set_yticks(range(len(every)), every)
    save(path / "words.png")


def sheet(title: str, score: Floats) -> tuple[Axes, Callable[[Path], None]]:
    """A picture with its score drawn below: the axes above, and what saves it."""
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    upper.set_title(title, loc="left", fontsize=9)
    lower.plot(np.where(score < 0, np.nan, score), linewidth=0.7, color="#555555")
    lower.axhline(3.0, color="#c0392b", linewidth=0.8, linestyle="--")
    lower.set_ylabel("score", fontsize=8)
    for axes in (upper, lower):
        axes.tick_params(labelsize=7)
    return upper, lambda path: figure.savefig(path, dpi=75)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "detectors"
    for each in SCENES:
        draw(each, folder)
    draw_words(folder)
