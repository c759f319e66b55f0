"""How often is a replica that does not leak convicted? Simulated hours of pairs of replicas, 1 Hz.

    python benchmarks/leak_false_alarms.py [--hours 4000]

Every second of every hour is screened by a condition that ``leaks`` implies (both t statistics beyond the critical
value for the least correlation it assumes, and enough growth); where it holds, ``leaks`` itself decides.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from leptonai.ops.convict import GROWN, LEAK_SCORE, PAST, SPANS, leaks
from leptonai.series.slope import MIN_CORRELATION

BATCH, SECONDS = 250, 3600
Steps = NDArray[np.float64]


def laws(rng: np.random.Generator) -> dict[str, object]:
    shape = (BATCH, SECONDS)

    def swings(r: float) -> Steps:
        steps = rng.normal(0, 1e6, shape)
        for t in range(1, SECONDS):
            steps[:, t] += r * steps[:, t - 1]
        return steps

    def sparse() -> Steps:
        size = rng.exponential(2e7, shape) * rng.choice([-1.0, 1.0], shape)
        return np.where(rng.random(shape) < 0.1, size, 0.0) + rng.normal(0, 1e5, shape)

    return {
        "normal steps, 2 MB": lambda: rng.normal(0, 2e6, shape),
        "Student t(3) steps, 2 MB": lambda: 2e6 * rng.standard_t(3, shape),
        "rare jumps of 20 MB up and down": sparse,
        "log-normal steps": lambda: 1e5 * rng.lognormal(0, 1.5, shape) * rng.choice([-1.0, 1.0], shape),
        "swings, correlation 0.6": lambda: swings(0.6),
        "swings, correlation 0.8": lambda: swings(0.8),
        "swings, correlation 0.9": lambda: swings(0.9),
    }


def totals(steps: Steps) -> Steps:
    return np.concatenate((np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)), axis=1)


def suspects(own: Steps, apart: Steps) -> NDArray[np.int64]:
    """(replica, last second) pairs at which some span could convict."""
    found = []
    sums, squares = [totals(own), totals(apart)], [totals(own * own), totals(apart * apart)]
    for span in SPANS:
        critical = -stdtrit(span - 1, 10**-LEAK_SCORE) * np.sqrt((1 + MIN_CORRELATION) / (1 - MIN_CORRELATION))
        # t >= critical, without a root or a quotient: total^2 >= share x sum of squares
        share = critical**2 * span / (span - 1 + critical**2)
        total = sums[0][:, span:] - sums[0][:, :-span]
        hit = total * total >= share * (squares[0][:, span:] - squares[0][:, :-span])
        row, start = np.nonzero(hit & (total >= GROWN))
        total = sums[1][row, start + span] - sums[1][row, start]
        keep = (total > 0) & (total * total >= share * (squares[1][row, start + span] - squares[1][row, start]))
        found.append(np.column_stack((row[keep], start[keep] + span)))
    return np.unique(np.concatenate(found), axis=0)


def convicted(own: Steps, other: Steps) -> set[int]:
    """Rows whose first replica ``leaks`` convicts at some second."""
    at, guilty = np.arange(SECONDS + 1.0), set()
    memory, sibling = 1e9 + totals(own), 1e9 + totals(other)
    for row, second in suspects(own, own - other):
        if int(row) in guilty:
            continue
        since = max(0, second - SPANS[-1] - PAST)
        look = slice(since, second + 1)
        rss = {"a": (at[look], memory[row, look]), "b": (at[look], sibling[row, look])}
        if any(leak.replica == "a" for leak in leaks(float(second), rss, {"a": -1e3, "b": -1e3})):
            guilty.add(int(row))
    return guilty


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=4000)
    parser.add_argument("--law", default="", help="only laws whose name contains this")
    options = parser.parse_args()
    hours = options.hours
    rng = np.random.default_rng(7)
    for name, draw in laws(rng).items():
        if options.law not in name:
            continue
        done = guilty = 0
        while done < hours:
            guilty += len(convicted(draw(), draw()))  # type: ignore[operator]
            done += BATCH
        bound = 3.0 / done if not guilty else (guilty + 2 * np.sqrt(guilty) + 1) / done
        print(f"{name:34s} {done:7,d} replica hours, {guilty:4d} convicted, 95 % bound {bound:.1e} an hour", flush=True)


if __name__ == "__main__":
    main()
