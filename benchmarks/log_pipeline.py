"""The log pipeline on one core: bytes of a followed file to kept, mined lines and signals; drain3 mining the same.

Lines are those of Loghub-2k with every digit drawn anew, all systems mixed as one service writes them, 20,000 a step.
Ours reads, decodes, parses, mines, keeps on disk and makes signals; drain3 is given decoded messages and only mines.
A flood of 100,000 lines a second is then read as the settings have it; and the cost of a second without any line.

    python benchmarks/log_pipeline.py --data DIR [--drain3 PYTHON]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet  # noqa: F401 - its loading is no part of a rate
from templates import drain3, load, steady

from leptonai.ops.logs.handoff import Handoff
from leptonai.ops.logs.pipeline import Pipeline
from leptonai.settings import Logs, Settings
from leptonai.types import Replica

STEP = 20_000  # lines a step
STEPS = 6


def pipeline(home: Path, limit: int) -> tuple[Pipeline, Path]:
    found = Pipeline(home, Settings(logs=Logs(lines_per_second=limit)), Handoff(1000), time.time)
    log = home / "run" / "r1" / "log"
    log.parent.mkdir(parents=True)
    found.watch([Replica(id="r1", service="all", variant="main", digest="d", state="ready", since=0.0)])
    found.step(time.time())
    return found, log


def run(lines: list[str], limit: int, each: int) -> tuple[float, int, int]:
    """Seconds of CPU, lines counted, lines read in full."""
    with tempfile.TemporaryDirectory() as folder:
        found, log = pipeline(Path(folder), limit)
        seconds = 0.0
        for start in range(0, len(lines), each):
            with log.open("a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines[start : start + each]))
            begin = time.process_time()
            found.step(time.time())
            seconds += time.process_time() - begin
        counts = found.counts
        found.close()
        return seconds, counts["lines"], counts["read"]


def idle(steps: int = 50) -> float:
    """Seconds of CPU of a step in which nothing was written, 10 services with 50 templates each."""
    with tempfile.TemporaryDirectory() as folder:
        found, _ = pipeline(Path(folder), 2000)
        names = [f"r{n}" for n in range(10)]
        replicas = [Replica(id=n, service=f"s{n}", variant="main", digest="d", state="ready", since=0.0) for n in names]
        words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
        found.watch(replicas)
        for n in names:
            (Path(folder) / "run" / n).mkdir(exist_ok=True)
            text = "".join(f"{a} did {b} with {i}\n" for i, a in enumerate(words) for b in words[:5])
            (Path(folder) / "run" / n / "log").write_text(text)
        now = time.time()
        for i in range(40):
            found.step(now + i)
        begin = time.process_time()
        for i in range(steps):
            found.step(now + 40 + i)
        seconds = time.process_time() - begin
        found.close()
        return seconds / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds loghub/")
    parser.add_argument("--drain3", metavar="PYTHON", help="an interpreter that has drain3")
    args = parser.parse_args()
    systems = load(args.data / "loghub")
    if not systems:
        sys.exit(f"Loghub is absent: no */*_2k.log_structured.csv under {args.data / 'loghub'}")
    mixed = [line for lines, _, _ in systems.values() for line in steady(lines)]
    random.Random(1).shuffle(mixed)
    lines = mixed[: STEP * STEPS]
    seconds, counted, read = run(lines, STEP, STEP)
    assert counted == read == len(lines)
    ours = len(lines) / seconds
    print(f"| whole pipeline, every line | {ours:,.0f} lines/s of CPU time |")
    if args.drain3:
        peer = drain3(args.drain3, {}, {"all": lines[:STEP]})["speed"]["steady"]["all"]
        print(f"| drain3, mining alone | {peer:,.0f} lines/s |\n| times | {ours / peer:.1f} |")
    seconds, counted, read = run(lines[:100_000], 2000, 100_000)
    print(f"| a second with {counted:,} lines, {read:,} read in full | {seconds:.3f} s of CPU |")
    print(f"| a second without a line, 11 services | {1e3 * idle():.1f} ms of CPU |")


if __name__ == "__main__":
    main()
