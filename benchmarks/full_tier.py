"""What the full tier costs: share of a core at 1 Hz for 1,000 signals in groups, by detector, and bytes a series.

python benchmarks/full_tier.py [--steps 60]
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from leptonai.ops.detect.full import OFF, ON, FullTier

WARM = 260


def cost(voters: tuple[str, ...], series: int, steps: int) -> tuple[float, float]:
    """Mean CPU seconds of a step (work that falls on every n-th step included), and bytes of state a series."""
    rng = np.random.default_rng(0)
    tier = FullTier(voters=voters)
    tier.open(series)
    for group in range(series // 10):
        tier.assign(np.arange(10 * group, 10 * group + 10), group)
    tier.limit(np.arange(series), -1e3, 1e3)
    every = np.ones(series, dtype=np.bool_)
    walk, spent = np.zeros(series // 2), 0.0
    for t in range(WARM + steps):
        walk += rng.standard_normal(walk.size)
        x = np.concatenate((walk, rng.standard_normal(series - walk.size)))
        before = time.process_time()
        tier.step(float(t), x, every)
        spent += (time.process_time() - before) * (t >= WARM)
    return spent / steps, tier.nbytes / series


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    print(f"{'':28}{'series':>8}{'share of a core':>17}{'us a series':>13}{'bytes a series':>16}")
    rows = [
        ("full tier, as shipped", ON, 1000),
        ("full tier, as shipped", ON, 4000),
        ("everything on", (*ON, *OFF), 1000),
    ]
    rows += [(f"{name} (and stated limits)", (name,), 1000) for name in (*ON, *OFF)]
    for name, voters, series in rows:
        seconds, held = cost(voters, series, steps)
        print(f"{name:28}{series:8,d}{seconds:17.2%}{seconds / series * 1e6:13.2f}{held:16,.0f}", flush=True)


if __name__ == "__main__":
    main()
