"""VUS-PR of the streaming detector on labelled series, beside each of its parts and the base tier's detectors.

    python benchmarks/vus.py --data FOLDER [--hints] [--peers peers.npz]

``--data``: the folder that holds ``nab/``; labels are NAB's windows, buffers twice the period TSB-AD's estimate gives.
``range_score`` is known one window late, ``score`` at once. Series without a window have no VUS-PR and are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from nab import ABLATION, File, read

from leptonai.ops.detect import Ar, Ewma
from leptonai.ops.detect.measure import period, vus_pr
from leptonai.ops.detect.stream import Hints, Stream
from leptonai.protocols import Detector, Floats


def labels(file: File) -> np.ndarray:
    out = np.zeros(len(file.values), dtype=bool)
    for first, last in file.windows:
        out[first : last + 1] = True
    return out


def columnar(detector: Detector, files: list[File]) -> list[Floats]:
    """Scores of a base-tier detector: all series at once, one slot each."""
    rows = max(len(f.values) for f in files)
    table = np.full((rows, len(files)), np.nan)
    for i, file in enumerate(files):
        table[: len(file.values), i] = file.values
    detector.open(len(files))
    learn = np.ones(len(files), dtype=np.bool_)
    scores = np.array([detector.step(float(t), table[t], learn).score for t in range(rows)])
    return [np.nan_to_num(scores[: len(f.values), i]) for i, f in enumerate(files)]


def trailing(scores: Floats, rows: int = 150) -> Floats:
    total = np.concatenate(([0.0], np.cumsum(scores)))
    at = np.arange(1, len(scores) + 1)
    return (total[at] - total[np.maximum(at - rows, 0)]) / rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--hints", action=argparse.BooleanOptionalAction, help="only with, or only without, hints")
    parser.add_argument("--peers", type=Path, help="scores made by vus_peers.py")
    given = parser.parse_args()
    files = [f for f in read(given.data)[0] if f.windows]
    truth = [labels(f) for f in files]
    sizes = [period(f.values) for f in files]
    categories = sorted({f.category for f in files})
    print(f"{len(files)} labelled series")
    print(f"{'':34}  mean  " + "  ".join(c[:12].rjust(12) for c in categories))

    def say(name: str, scores: list[Floats]) -> None:
        got = [vus_pr(t, s, size) for t, s, size in zip(truth, scores, sizes, strict=True)]
        by = [np.mean([g for g, f in zip(got, files, strict=True) if f.category == c]) for c in categories]
        print(f"{name:34} {np.mean(got):5.3f}  " + "  ".join(f"{b:12.3f}" for b in by), flush=True)

    for hinted in (True, False) if given.hints is None else (given.hints,):
        word = "with hints" if hinted else "without hints"
        parts = ABLATION if hinted else {"all": ABLATION["all"]}
        for name, kind in parts.items():
            pairs = []
            for file in files:
                stream = Stream(file.hints if hinted else Hints(), kind)
                score, ranges = stream.push(file.values)
                pairs.append((score, np.concatenate((ranges, stream.finish()))))
            say(f"{name}, {word}: range", [p[1] for p in pairs])
            say(f"{name}, {word}: score", [p[0] for p in pairs])
    for detector in (Ewma(), Ar()):
        scores = columnar(detector, files)
        say(f"base tier {detector.name}", scores)
        say(f"base tier {detector.name}, mean of 150 rows", [trailing(s) for s in scores])
    if given.peers:
        peers = np.load(given.peers)
        for peer in sorted({key.split("|")[0] for key in peers}):
            say(f"TSB-AD {peer}, not streaming", [peers[f"{peer}|{f.name}"] for f in files])
    rng = np.random.default_rng(0)
    say("noise", [rng.random(len(f.values)) for f in files])
    say("noise, mean of 150 rows", [trailing(rng.random(len(f.values))) for f in files])


if __name__ == "__main__":
    main()
