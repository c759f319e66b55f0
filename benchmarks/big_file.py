"""A CSV of ten million rows through ``leptonai detect``: rows a second, the most memory it held, what it found.

    python benchmarks/big_file.py [--rows 10000000] [--folder DIR]

A wave of 1,440 rows with noise, in three places something else for a while. The file is written first, into DIR (some
30 bytes a row, and 60 for the scores); both go when it ends. Wanted: an answer, and memory that does not grow with it.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STRANGE = (0.31, 0.62, 0.93)  # of the file; 4,000 rows each
CHUNK = 100_000


def write(path: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        file.write("timestamp,value,label\n")
        for start in range(0, rows, CHUNK):
            t = np.arange(start, min(start + CHUNK, rows))
            label = np.zeros(len(t), dtype=int)
            for share in STRANGE:
                label |= (t >= int(share * rows)) & (t < int(share * rows) + 4_000)
            value = 50 + 10 * np.sin(2 * np.pi * t / 1440) + rng.standard_normal(len(t))
            value = np.where(label == 1, 75 + 12 * np.sign(np.sin(2 * np.pi * t / 97)), value)
            for moment, x, odd in zip(t.tolist(), value.tolist(), label.tolist(), strict=True):
                file.write(f"{1_600_000_000 + moment},{x:.4f},{odd}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path, scores = Path(folder) / "big.csv", Path(folder) / "scores.csv"
        write(path, given.rows)
        command = [sys.executable, "-m", "leptonai.cli", "detect", str(path), "--label", "label"]
        command += ["--rows", str(given.rows), "--scores", str(scores)]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        took = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = used.ru_utime + used.ru_stime
        with scores.open() as file:
            told = sum(1 for _ in file) - 1
        print(f"{given.rows:,} rows, {path.stat().st_size >> 20} MiB: exit {done.returncode}, {told:,} scored, "
              f"{took:.0f} s, {given.rows / took:,.0f} rows/s, {given.rows / cpu:,.0f} a second of CPU, "
              f"at most {used.ru_maxrss >> 10} MB")  # fmt: skip
        print(done.stdout[-2500:], done.stderr[-500:])


if __name__ == "__main__":
    main()
