"""Kill -9 at every step boundary and in the middle of every step: the same command ends with the same model.

    python benchmarks/pipeline.py [--seeds 1]

A network on scikit-learn's digits: collect, train, evaluate, compress (pruned, int8), report. One run is left alone;
of another, each process is killed when a step's work folder appears (mid-step), when a checkpoint of the training
appears, and when a step's result appears (boundary). Both must end with the same sha256; how often each step was begun
is printed beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

TEXT = """
name: digits
collect: [base.npz, new.npz]
train: {module: net.py, epochs: 8, every: 10, seed: SEED}
evaluate: {test: test.npz, at_least: 0.8}
compress: {budget: accuracy=3%, only: [prune 50%, int8 stored], steps: 200}
"""
NET = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self, width=128):
        super().__init__(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
"""
STEPS = ("collect", "train", "evaluate", "compress", "report")
MOMENTS = [m for s in STEPS for m in (f"work/{s}-*", *(["work/train-*/checkpoints/*.ckpt"] if s == "train" else []),
                                      f"done/{s}-*")]  # fmt: skip


def command(folder: Path, run: str) -> list[str]:
    here = [sys.executable, "-m", "leptonai.cli", "pipeline", "run", str(folder / "flow.yaml")]
    return [*here, "--folder", str(folder / run), "--json"]


def killed(folder: Path, moment: str, tries: int = 20) -> str:
    """ "killed", at the first try that was in time: a report takes some ms. "too late": none was."""
    for attempt in range(1, tries + 1):
        began = time.time_ns()
        with subprocess.Popen(command(folder, "cut"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while not _new(folder / "cut", moment, began) and process.poll() is None:
                time.sleep(0.0002)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            if process.wait() == -signal.SIGKILL:
                return "killed" if attempt == 1 else f"killed, at try {attempt}"
    return "too late"


def _new(folder: Path, moment: str, began: int) -> bool:
    """Whether the path was written by this process: those of earlier ones lie there too."""
    with contextlib.suppress(FileNotFoundError):  # gone between two looks
        return any(p.stat().st_mtime_ns > began for p in folder.glob(moment))
    return False


def digest(folder: Path, run: str) -> str:
    done = subprocess.run(command(folder, run), check=True, capture_output=True, text=True)
    return str(json.loads(done.stdout)["values"]["digest"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    o = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    x, y = load_digits(return_X_y=True)
    x = ((x - 4.9) / 6).astype(np.float32)
    for seed in range(o.seeds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for file, part in (("base", slice(0, 700)), ("new", slice(600, 1200)), ("test", slice(1200, None))):
                np.savez(folder / f"{file}.npz", x=x[part], y=y[part])
            (folder / "net.py").write_text(NET)
            (folder / "flow.yaml").write_text(TEXT.replace("SEED", str(seed)))
            whole = digest(folder, "whole")
            for moment in MOMENTS:
                print(f"  seed {seed} {moment:34} {killed(folder, moment)}", flush=True)
            cut = digest(folder, "cut")
            print(f"seed {seed}: alone {whole[:16]}, killed {len(MOMENTS)} times {cut[:16]}: "
                  f"{'THE SAME' if whole == cut else 'DIFFERENT'}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
