"""Claim: over 10,000 random histories of incidents, runbooks, people and faults of the platform itself, no guard rail
of docs/runbooks.md is broken.

    python benchmarks/guard_rails.py [--histories 10000]

The engine, the runbook, the remedies and the door's judge are those of production; simulated are replicas, telemetry
and people. What is proposed, admitted and judged is held against rules of their own (tests/ops/guard_stage.py), each of
which is broken on purpose in tests/ops/test_guard_rails.py. A history has up to 25 turns; hypothesis draws them anew in
each run. Ends with 1 when one did.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "ops"))

from guard_stage import SEEN
from test_guard_histories import play

CHUNK = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=10_000)
    count = parser.parse_args().histories
    began = time.monotonic()
    while SEEN["histories"] < count:
        play(min(CHUNK, count - SEEN["histories"]), shrink=False)
        print(f"{SEEN['histories']:,} histories, {time.monotonic() - began:.0f} s", flush=True)
    for what, times in sorted(SEEN.items()):
        print(f"{what:<28} {times:>10,}")
    print("no guard rail was broken")


if __name__ == "__main__":
    main()
