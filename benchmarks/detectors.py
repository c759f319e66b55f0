"""Each detector alone, the full tier, and the full tier without each: NAB and VUS-PR on one corpus, and groups.

    python benchmarks/detectors.py --data FOLDER [--only series groups stated] [--peers river.npz merlion.npz]

``--data``: the folder that holds ``nab/``. All series run side by side, one slot each, from scratch, streaming, with
one set of options and no hints. For NAB all scores pass the same repeat suppression (what is not 1.2 times worse than
all within a fifth of the probation before it is no alarm); for VUS-PR all are averaged over the newest 150 rows.
``seasonal`` knows the day and the series' step, nothing else. Left out: the threshold of a random half of the files on
the other half, 20 times. Groups: vectors with one factor, 4 members, faults of four kinds put in; what share of faults
scores 3 within 5 steps, and what share of ordinary steps does. Stated: what fills up and what falls silent, told by
the detectors that need no second voice and by simpler rules. Peers: netdata's algorithm done again, and what
nab_peers.py made of others in environments of their own; same suppression, same averages.
"""

from __future__ import annotations

import argparse
import csv
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from nab import File, read
from netdata import netdata
from scipy.signal import lfilter
from vus import labels, trailing

from leptonai.ops.detect.ar import Ar
from leptonai.ops.detect.autoencoder import Autoencoder
from leptonai.ops.detect.correlation import Mahalanobis, Pca
from leptonai.ops.detect.exhaustion import Exhaustion
from leptonai.ops.detect.forest import IsolationForest, RandomForest
from leptonai.ops.detect.full import ALARM, LOUDER, OFF, ON, FullTier, agreed
from leptonai.ops.detect.groups import Grouped
from leptonai.ops.detect.measure import Judged, nab, period, vus_pr
from leptonai.ops.detect.missing import Missing
from leptonai.ops.detect.oneclass import OneClass
from leptonai.ops.detect.seasonal import Seasonal
from leptonai.ops.detect.stream import Hints, detect
from leptonai.protocols import Detector, Floats
from leptonai.series.garch import Garch
from leptonai.series.robust import Level
from leptonai.series.tails import Tail

GROUPED = (Mahalanobis, Pca, IsolationForest, RandomForest, OneClass, Autoencoder)
SINGLE = [name for name in (*ON, *OFF) if name not in {m.name for m in GROUPED}]


def began(data: Path, file: File) -> tuple[float, float]:
    """When a series begins and its step, in seconds."""
    with (data / "nab" / "data" / file.name).open() as rows:
        at = [datetime.fromisoformat(r["timestamp"]).replace(tzinfo=UTC).timestamp() for r in csv.DictReader(rows)]
    return at[0], float(np.median(np.diff(at)))


def scores(files: list[File], times: list[tuple[float, float]]) -> dict[str, list[Floats]]:
    """By detector, each file's scores: all files side by side, but each on its own clock where that matters."""
    voters = [name for name in SINGLE if name != "seasonal"]
    tier = FullTier(voters=voters, every=18)
    told = {name: columnar(tier.voters[name], files) for name in voters}
    told["seasonal"] = []
    for file, (start, step) in zip(files, times, strict=True):
        seasonal, one = Seasonal(weekly=False), np.ones(1, dtype=np.bool_)
        seasonal.open(1)
        said = [seasonal.step(start + t * step, file.values[t : t + 1], one).score[0] for t in range(len(file.values))]
        told["seasonal"].append(np.array(said))
    return told


def shaped(score: Floats, rows: int) -> Floats:
    """Repeats suppressed: a score that is not LOUDER than all of the newest ``rows`` is none."""
    out = np.zeros(len(score))
    for t, value in enumerate(score):
        before = score[max(t - rows, 0) : t].max() if t else 0.0
        out[t] = value if value > LOUDER * before else 0.0
    return out


class Scaled(Ar):
    """An Ar whose residual is judged by another scale; for the ablation of volatility."""

    how = "constant"

    def step(self, at, x, learn):  # type: ignore[no-untyped-def]
        if not hasattr(self, "garch"):
            self.garch, self.tail2, self.scale2 = Garch(), Tail(), Level(alpha=0.002)
            for part in (self.garch, self.tail2, self.scale2):
                part.open(self.slots)
        told = super().step(at, x, learn)
        residual = x - told.expected
        _, constant, _, _ = self.scale2.step(residual, learn & np.isfinite(residual))
        sigma = np.sqrt(self.garch.variance())
        gated = np.where(self.garch.arch() > 3.0, np.maximum(sigma, constant), constant)
        use = {"constant": constant, "garch": sigma, "greater": np.maximum(sigma, constant), "gated": gated}[self.how]
        z = residual / use
        score = self.tail2.score(z)
        self.tail2.learn(z, learn, np.zeros(len(x), dtype=np.bool_))
        self.garch.learn(residual, learn)
        return told._replace(score=score)


def scaled(files: list[File], how: str) -> list[Floats]:
    ar = Scaled()
    ar.how = how
    return columnar(ar, files)


def columnar(detector: Detector, files: list[File]) -> list[Floats]:
    """Scores of all series at once, one slot each; nan where the detector cannot tell."""
    table = np.full((max(len(f.values) for f in files), len(files)), np.nan)
    for i, file in enumerate(files):
        table[: len(file.values), i] = file.values
    detector.open(len(files))
    every = np.ones(len(files), dtype=np.bool_)
    told = np.array([detector.step(float(t), row, every).score for t, row in enumerate(table)])
    return [told[: len(f.values), i] for i, f in enumerate(files)]


def groups() -> None:
    kinds = ("one member out by 6", "all out by 6", "a relation breaks", "all small but wrong")
    print(f"\n{'groups of 4, 60 groups':24}" + "".join(k.rjust(22) for k in kinds) + "   ordinary steps at 3")
    said: dict[str, list[Floats]] = {}
    for kind in range(4):
        rng = np.random.default_rng(kind)
        x = rng.standard_normal((1500, 60, 1)) + 0.4 * rng.standard_normal((1500, 60, 4))
        for t in (1000, 1150, 1300, 1450):
            if kind == 0:
                x[t : t + 3, :, 1] += 6.0
            elif kind == 1:
                x[t : t + 3] += 6.0
            elif kind == 2:
                x[t : t + 3] = rng.choice([-1.5, 1.5], (3, 60, 4))
            else:
                x[t : t + 3] = rng.standard_normal((3, 60, 4)) * 0.7
        x = x.reshape(1500, 240)
        for make in GROUPED:
            detector: Grouped = make()
            detector.open(240)
            for g in range(60):
                detector.assign(np.arange(4 * g, 4 * g + 4), g)
            every = np.ones(240, dtype=np.bool_)
            told = np.array([detector.step(float(t), row, every).score for t, row in enumerate(x)])
            said.setdefault(detector.name, []).append(np.nan_to_num(told).reshape(1500, 60, 4).max(axis=2))
    made_names = list(said)
    said["agreed, all"] = [agreed([said[n][k] for n in made_names]) for k in range(4)]
    pair = ("mahalanobis", "pca")
    said["agreed, mahalanobis and pca"] = [agreed([said[n][k] for n in pair]) for k in range(4)]
    for name in (n for n in made_names if n not in pair):
        said[f"... and {name}"] = [agreed([said[n][k] for n in (*pair, name)]) for k in range(4)]
    for name in made_names:
        rest = [n for n in made_names if n != name]
        said[f"agreed, no {name}"] = [agreed([said[n][k] for n in rest]) for k in range(4)]
    for name, by in said.items():
        found = [np.mean([(s[t : t + 5] >= 3).any(axis=0).mean() for t in (1000, 1150, 1300, 1450)]) for s in by]
        quiet = np.mean([(s[500:1000] >= 3).mean() for s in by])
        print(f"{name:24}" + "".join(f"{f:22.2f}" for f in found) + f"   {quiet:.5f}", flush=True)


def fills() -> None:
    """Climbs to a limit of 1,000 from 400 within a horizon of 15 minutes, and what only looks like one."""
    rng, slots, steps, horizon = np.random.default_rng(3), 200, 3000, 900.0
    t = np.arange(steps)[:, None]
    noise = rng.standard_normal((steps, slots))
    swing = lfilter([1.0], [1.0, -0.95], noise, axis=0)  # memory: a deviation lasts some 20 steps
    climb = np.clip(t - 1000, 0, None) * 0.5  # 1,200 s from 400 to 1,000, or 7,200 s at a sixth of it
    cases = {
        "climbs, noise 5": 400 + climb + 5 * noise,
        "climbs, swings": 400 + climb + 5 * swing,
        "a sixth as fast, noise 5": 400 + climb / 6 + 5 * noise,
        "quiet, noise 5": 400 + 5 * noise,
        "quiet, swings": 400 + 5 * swing,
        "a random walk": 400 + np.cumsum(noise, axis=0),
        "a day's wave": 600 + 150 * np.sin(2 * np.pi * t / 2500) + 5 * noise,
        "jumps": 400 + np.cumsum(30 * (rng.random((steps, slots)) < 0.002) * rng.standard_normal((steps, slots)), 0),
    }
    print(f"\n{'what fills, horizon 15 min':28}{'told':>10}{'s before the limit':>20}{'band held':>11}"
          f"{'line: told':>14}{'s before':>10}")  # fmt: skip
    for name, x in cases.items():
        detector, every = Exhaustion(horizon=horizon), np.ones(slots, dtype=np.bool_)
        detector.open(slots)
        detector.set(np.arange(slots), upper=1000.0)
        alarm, line, held = np.full((2, slots), np.nan), np.full((2, slots), np.nan), []
        beyond = np.where((x >= 1000).any(axis=0), (x >= 1000).argmax(axis=0), np.inf)
        for step, row in enumerate(x):
            score = detector.step(float(step), row, every).score
            fresh = (score >= ALARM) & np.isnan(alarm[0]) & (step < beyond)
            alarm[0, fresh] = step
            if step == 1800:
                _, soonest, latest = detector.remaining()
                due = beyond - step
                held = list(((soonest <= due) & (due <= latest))[np.isfinite(due)])
            if step >= 60:  # the plain rule: a least-squares line through the newest minute reaches the limit in time
                window = x[step - 60 : step]
                slope = ((np.arange(60)[:, None] - 29.5) * window).sum(axis=0) / 17995.0
                reaches = (slope > 0) & (row + slope * horizon >= 1000) & (step < beyond)
                line[0, reaches & np.isnan(line[0])] = step
        for first in (alarm, line):
            first[1] = beyond - first[0]
        cells = []
        for first in (alarm, line):
            said = np.isfinite(first[0])
            ahead = first[1][said & np.isfinite(beyond)]
            cells.append((said.mean(), f"{np.median(ahead):.0f}" if len(ahead) else "-"))
        print(f"{name:28}{cells[0][0]:10.2f}{cells[0][1]:>20}{np.mean(held) if held else np.nan:11.2f}"
              f"{cells[1][0]:14.2f}{cells[1][1]:>10}", flush=True)  # fmt: skip


def silence() -> None:
    """Series that miss a step now and then, and stop for good at step 2,000; a rule of a fixed number beside."""
    rng, slots, steps = np.random.default_rng(4), 200, 2200
    print(f"\n{'what falls silent':36}{'told':>8}{'after steps':>13}{'false alarms a day':>20}"
          f"{'5 missed: after':>17}{'a day':>10}")  # fmt: skip
    for name, (begins, goes_on) in {
        "every step": (0.0, 0.0),
        "1 in 20 missed": (0.05, 0.05),
        "1 in 3 missed": (0.33, 0.33),
        "gaps of 5 on average, 1 in 50 steps": (0.02, 0.8),
        "gaps of 10 on average, 1 in 100": (0.01, 0.9),
    }.items():
        there = np.ones((steps, slots), dtype=bool)
        for t in range(1, 2000):
            there[t] = rng.random(slots) >= np.where(there[t - 1], begins, goes_on)
        there[2000:] = False
        detector, every = Missing(), np.ones(slots, dtype=np.bool_)
        detector.open(slots)
        score = np.array(
            [detector.step(float(t), np.where(row, 1.0, np.nan), every).score for t, row in enumerate(there)]
        )
        gap = np.zeros((steps, slots))
        for t in range(1, steps):
            gap[t] = np.where(there[t], 0, gap[t - 1] + 1)
        cells = []
        for alarm in (np.nan_to_num(score) >= ALARM, gap >= 5):
            begun = (alarm[1:2000] & ~alarm[:1999])[500:].sum() / slots / 1500 * 86400
            told = alarm[2000:].any(axis=0)
            cells.append(
                (told.mean(), np.median(alarm[2000:].argmax(axis=0)[told]) + 1 if told.any() else np.nan, begun)
            )
        print(f"{name:36}{cells[0][0]:8.2f}{cells[0][1]:13.0f}{cells[0][2]:20.1f}{cells[1][1]:17.0f}{cells[1][2]:10.1f}",
              flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument(
        "--only", nargs="+", choices=["series", "groups", "stated"], default=["series", "groups", "stated"]
    )
    parser.add_argument("--peers", type=Path, nargs="*", default=[], help="scores made by nab_peers.py")
    given = parser.parse_args()
    if "series" in given.only:
        if given.data is None:
            parser.error("--data FOLDER is needed")
        files, profiles = read(given.data)
        found = scores(files, [began(given.data, f) for f in files])
        others = {"netdata's algorithm": [netdata(f.values) for f in files]}
        for path in given.peers:
            kept = np.load(path)
            for peer in sorted({key.split("|")[0] for key in kept}):
                others[peer] = [kept[f"{peer}|{f.name}"] for f in files]
        series(files, list(profiles.values()), found, others)
    if "groups" in given.only:
        groups()
    if "stated" in given.only:
        fills()
        silence()


def series(files: list[File], profiles: list, found: dict, others: dict) -> None:  # type: ignore[type-arg]
    rows: dict[str, list[Floats]] = dict(found)
    on = [name for name in ON if name in found]
    rows["full tier (agreed)"] = [agreed([found[n][i] for n in on]) for i in range(len(files))]
    for name in on:
        rows[f"full tier, no {name}"] = [agreed([found[n][i] for n in on if n != name]) for i in range(len(files))]
    for name in (n for n in OFF if n in found):
        rows[f"full tier and {name}"] = [agreed([found[n][i] for n in (*on, name)]) for i in range(len(files))]
    rows["full tier, averaged"] = [
        np.nanmean([np.nan_to_num(found[n][i]) for n in on], axis=0) for i in range(len(files))
    ]
    for how in ("constant", "garch", "greater", "gated"):
        rows[f"ar residual, scale {how}"] = scaled(files, how)
    rows["two-scale novelty of leptonai detect, no hints"] = [detect(f.values, Hints())[0] for f in files]
    rows |= others
    rng = np.random.default_rng(0)
    halves = [np.array_split(rng.permutation(len(files)), 2) for _ in range(20)]
    sizes = [period(f.values) for f in files]
    print(f"\n{'':48}{'NAB standard':>13}{'low FP':>8}{'low FN':>8}{'left out':>10}{'VUS-PR':>8}")
    for name, by in rows.items():
        by = [np.nan_to_num(s) for s in by]
        corpus = [Judged(shaped(s, int(0.2 * f.hints.probation)), f.windows) for s, f in zip(by, files, strict=True)]
        best = [nab(corpus, p).score for p in profiles]
        left = []
        for mine, theirs in halves:
            threshold = nab([corpus[i] for i in mine], profiles[0]).threshold
            left.append(nab([corpus[i] for i in theirs], profiles[0], threshold).score)
        vus = [vus_pr(labels(f), trailing(s), w) for s, f, w in zip(by, files, sizes, strict=True) if f.windows]
        print(
            f"{name:48}{best[0]:13.1f}{best[1]:8.1f}{best[2]:8.1f}{np.mean(left):10.1f}{np.mean(vus):8.3f}", flush=True
        )


if __name__ == "__main__":
    main()
