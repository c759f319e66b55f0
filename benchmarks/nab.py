"""The NAB score of the streaming detector: with and without hints, by category, ablated, and on files left out.

    python benchmarks/nab.py --data FOLDER [--hints | --no-hints] [--ablation] [--splits 20]

``--data``: the folder that holds ``nab/`` (data/, labels/combined_windows.json, config/profiles.json). Scores are by
the rules of NAB 1.1, one threshold for all series per profile; ``climb`` is the score by the older hill climb.
``--splits``: one parameter (samples in the probation) and the threshold are chosen on a random half of the files and
judged on the other; and on all categories but one, judged on that one.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from leptonai.ops.detect import sized as tuned
from leptonai.ops.detect.measure import Judged, Profile, climb, nab
from leptonai.ops.detect.novelty import Novelty
from leptonai.ops.detect.sized import Hints, Sampler, Sized
from leptonai.ops.detect.stream import Stream
from leptonai.protocols import Floats


@dataclass(frozen=True)
class File:
    name: str
    values: Floats
    windows: list[tuple[int, int]]

    @property
    def hints(self) -> Hints:
        return Hints(float(self.values.min()), float(self.values.max()), len(self.values))

    @property
    def category(self) -> str:
        return self.name.split("/")[0]


def read(data: Path) -> tuple[list[File], dict[str, Profile]]:
    root = data / "nab"
    if not (root / "labels" / "combined_windows.json").is_file():
        raise SystemExit(f"no NAB data in {root}: nothing was measured")
    labels = json.loads((root / "labels" / "combined_windows.json").read_text())
    files = []
    for name in sorted(labels):
        with (root / "data" / name).open() as file:
            rows = list(csv.DictReader(file))
        at = [datetime.fromisoformat(r["timestamp"]) for r in rows]
        windows = [tuple(at.index(datetime.fromisoformat(edge)) for edge in window) for window in labels[name]]
        files.append(File(name, np.array([float(r["value"]) for r in rows]), windows))
    costs = json.loads((root / "config" / "profiles.json").read_text())
    return files, {name: Profile(c["CostMatrix"]["fpWeight"], c["CostMatrix"]["fnWeight"]) for name, c in costs.items()}


def score(file: File, hints: Hints, kind: Callable[[Hints], Sized] = Sized) -> Judged:
    return Judged(Stream(hints, kind).push(file.values)[0], file.windows)


class FineOnly(Sized):
    def _agree(self, fine: float, coarse: float) -> float:
        return fine


class CoarseOnly(Sized):
    def _agree(self, fine: float, coarse: float) -> float:
        return coarse


class Mean(Sized):
    def _agree(self, fine: float, coarse: float) -> float:
        return (fine + coarse) / 2


class Least(Sized):
    def _agree(self, fine: float, coarse: float) -> float:
        return min(fine, coarse)


class Repeating(Sized):
    louder = 0.0


class Trusting(Sized):
    doubt = 0.0


class FirstValue(Sized):
    """Samples are means, not extremes."""

    def __init__(self, hints: Hints) -> None:
        super().__init__(hints)
        self._fine, self._coarse = (Averager(), Novelty()), (Averager(), Novelty())


class Averager(Sampler):
    def step(self, block: Floats) -> float:
        return float(np.nanmean(block)) if np.isfinite(block).any() else np.nan


def lengths(*of: int) -> Callable[[Hints], Sized]:
    def made(hints: Hints) -> Sized:
        stream = Sized(hints)
        stream._fine, stream._coarse = (Sampler(), Novelty(of)), (Sampler(), Novelty(of))
        return stream

    return made


def unscaled(hints: Hints) -> Sized:
    """Distances as they are, not by what is usual in this series."""
    stream = Sized(hints)
    stream._fine, stream._coarse = (Sampler(), Novelty(floor=1e3)), (Sampler(), Novelty(floor=1e3))
    return stream


ABLATION: dict[str, Callable[[Hints], Sized]] = {
    "all": Sized,
    "fine scale only": FineOnly,
    "coarse scale only": CoarseOnly,
    "scales averaged": Mean,
    "least of the scales": Least,
    "windows of 2 only": lengths(2),
    "windows of 3 only": lengths(3),
    "windows of 4 only": lengths(4),
    "repeats not suppressed": Repeating,
    "alarms cost no credit": Trusting,
    "mean for extreme": FirstValue,
    "not scaled by its mean": unscaled,
}


def row(name: str, corpus: list[Judged], profiles: dict[str, Profile]) -> None:
    best = [nab(corpus, p) for p in profiles.values()]
    cells = "  ".join(f"{b.score:6.1f}" for b in best)
    first = best[0]
    print(f"{name:28} {cells}   {first.found:3} found {first.false_alarms:4} false   threshold {first.threshold:.2f}")


def splits(files: list[File], profiles: dict[str, Profile], times: int) -> None:
    grid = (28, 32, 36, 40, 45, 50, 56)
    settled = tuned.SAMPLES
    scored = {}
    for samples in grid:
        tuned.SAMPLES = samples
        scored[samples] = [score(f, f.hints) for f in files]
    tuned.SAMPLES = settled
    for name, profile in profiles.items():
        print(f"{name}: " + "  ".join(f"{k} samples {nab(scored[k], profile).score:.1f}" for k in grid))
        rng = np.random.default_rng(0)
        out, fixed, ours = [], [], []
        for _ in range(times):
            order = rng.permutation(len(files))
            mine, theirs = order[: len(files) // 2], order[len(files) // 2 :]
            best = {k: nab([scored[k][i] for i in mine], profile) for k in grid}
            k = max(grid, key=lambda k: best[k].score)
            left = [scored[k][i] for i in theirs]
            out.append(nab(left, profile).score)
            fixed.append(nab(left, profile, best[k].threshold).score)
            ours.append(nab([scored[settled][i] for i in theirs], profile).score)
        for what, got in (
            ("chosen on one half, judged on the other, best threshold there", out),
            ("the same, threshold of the first half too", fixed),
            (f"the shipped {settled} samples on the same halves", ours),
        ):
            print(f"  {what}: {np.mean(got):.1f} (sd {np.std(got):.1f}) over {times} splits")
        settled_at = nab(scored[settled], profile).threshold
        pooled = [Judged(s.scores / settled_at, s.windows) for s in scored[settled]]  # 1 is the threshold
        for category in {f.category for f in files if f.windows}:
            best = {k: nab([s for s, f in zip(scored[k], files, strict=True) if f.category != category], profile)
                    for k in grid}  # fmt: skip
            k = max(grid, key=lambda k: best[k].score)
            for i in (i for i, f in enumerate(files) if f.category == category):
                pooled[i] = Judged(scored[k][i].scores / best[k].threshold, files[i].windows)  # 1 is the threshold
        score_left = nab(pooled, profile, 1.0).score
        print(f"  each category by samples and threshold of the others, pooled: {score_left:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--hints", action=argparse.BooleanOptionalAction, help="only with, or only without, hints")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--splits", type=int, default=0)
    given = parser.parse_args()
    files, profiles = read(given.data)
    print(
        f"{len(files)} series, {sum(len(f.values) for f in files):,} rows, {sum(len(f.windows) for f in files)} windows"
    )
    print(f"{'':28} " + "  ".join(name.removeprefix("reward_")[:6].rjust(6) for name in profiles))
    for hinted in (True, False) if given.hints is None else (given.hints,):
        corpus = [score(f, f.hints if hinted else Hints()) for f in files]
        word = "with" if hinted else "without"
        row(f"{word} hints", corpus, profiles)
        climbed = "  ".join(f"{climb(corpus, p).score:6.1f}" for p in profiles.values())
        fixed = "  ".join(f"{nab(corpus, p, tuned.ALARM).score:6.1f}" for p in profiles.values())
        print(f"{'  by hill climb':28} {climbed}\n{f'  at {tuned.ALARM}':28} {fixed}")
        best = nab(corpus).threshold
        for category in sorted({f.category for f in files}):
            part = [c for c, f in zip(corpus, files, strict=True) if f.category == category]
            at = [nab(part, p, best) for p in profiles.values()]
            cells = "  ".join(f"{a.score:6.1f}" for a in at)
            print(f"  {category:26} {cells}   {at[0].found:3} found {at[0].false_alarms:4} false")
    if given.hints is None:
        row("range known, length not", [score(f, Hints(f.hints.low, f.hints.high)) for f in files], profiles)
        row("length known, range not", [score(f, Hints(rows=len(f.values))) for f in files], profiles)
    if given.ablation:
        print("\nablation, with hints")
        for name, kind in ABLATION.items():
            row(name, [score(f, f.hints, kind) for f in files], profiles)
    if given.splits:
        print()
        splits(files, profiles, given.splits)


if __name__ == "__main__":
    main()
